//! The GPU that candle computes on, where this build has CUDA and the machine a driver.
//!
//! It is opened once in a process, by the worker between two of its walls (`sealed`), and warmed up: what the driver loads
//! at first use it loads then. A machine without a driver, or one whose libraries are not there, is told in words, and the
//! CPU computes.

use std::path::Path;

/// Where the driver's own device node is. Without it nothing of CUDA works, and no library needs to be asked.
const CONTROL: &str = "/dev/nvidiactl";

/// Whether a driver seems to be there; what is said of it, for people. Opens nothing.
pub(crate) fn driver() -> Result<(), String> {
    if !cfg!(feature = "cuda") {
        return Err("this build has no CUDA".to_owned());
    }
    if !Path::new(CONTROL).exists() {
        return Err(format!("CUDA is built in, but no driver was found: there is no {CONTROL}"));
    }
    Ok(())
}

/// Whether a device node of this name is a card of the driver's: `nvidia0`, `nvidia1`, …
pub(crate) fn is_card(name: &str) -> bool {
    let number = name.strip_prefix("nvidia").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::panic::catch_unwind;
    use std::sync::OnceLock;

    use candle_core::{DType, Device, Tensor};

    /// Rows and columns of the first multiplication: enough for every library to load what it needs.
    const WARM: usize = 64;

    /// An opened GPU.
    pub(crate) struct Gpu {
        pub(crate) device: Device,
        /// Bytes of its memory that were free when it was opened.
        pub(crate) free: u64,
    }

    /// The first GPU of the driver, opened when this is asked first.
    pub(crate) fn gpu() -> Result<&'static Gpu, &'static str> {
        static GPU: OnceLock<Result<Gpu, String>> = OnceLock::new();
        GPU.get_or_init(open).as_ref().map_err(String::as_str)
    }

    fn open() -> Result<Gpu, String> {
        super::driver()?;
        // A library that is not found ends in a panic of the crate that looks for it.
        let opened =
            catch_unwind(|| Device::new_cuda(0).and_then(|device| warm(&device).map(|free| (device, free))));
        match opened {
            Ok(Ok((device, free))) => Ok(Gpu { device, free }),
            Ok(Err(error)) => Err(format!("CUDA is built in, but the GPU can't be used: {error}")),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().map_or("a library is missing", String::as_str);
                Err(format!("CUDA is built in, but its libraries could not be loaded: {words}"))
            }
        }
    }

    /// Runs a kernel of each library that serving takes, and says how much memory is free after.
    fn warm(device: &Device) -> candle_core::Result<u64> {
        let numbers = Tensor::ones((WARM, WARM), DType::F32, device)?;
        let product = numbers.matmul(&numbers)?.sum_all()?.to_scalar::<f32>()?;
        let wanted = (WARM * WARM * WARM) as f32;
        if product != wanted {
            candle_core::bail!("its first multiplication gave {product} instead of {wanted}");
        }
        let (free, _) = device
            .as_cuda_device()?
            .cuda_stream()
            .context()
            .mem_get_info()
            .map_err(candle_core::Error::wrap)?;
        Ok(free as u64)
    }
}

#[cfg(feature = "cuda")]
pub(crate) use cuda::gpu;

/// What candle computes on: the GPU, or the CPU where there is none.
pub(crate) fn device() -> candle_core::Device {
    #[cfg(feature = "cuda")]
    if let Ok(gpu) = gpu() {
        return gpu.device.clone();
    }
    candle_core::Device::Cpu
}

/// Opens the GPU for good; what became of that, for people.
pub(crate) fn open() -> Result<(), String> {
    #[cfg(feature = "cuda")]
    gpu().map_err(str::to_owned)?;
    driver()
}

/// Bytes of the GPU's memory that were free when it was opened; nothing where none was.
pub(crate) fn memory() -> Option<u64> {
    #[cfg(feature = "cuda")]
    if driver().is_ok() {
        return gpu().ok().map(|gpu| gpu.free);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_the_driver_is_so() {
        let said = driver();
        let there = Path::new(CONTROL).exists();
        match cfg!(feature = "cuda") {
            false => assert_eq!(said, Err("this build has no CUDA".to_owned())),
            true => assert_eq!(said.is_ok(), there, "{said:?}"),
        }
        // Without a driver nothing is opened, and the CPU computes.
        if !there {
            assert!(device().is_cpu() && open().is_err() && memory().is_none());
        }
    }
}
