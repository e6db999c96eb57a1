//! What the benchmarks share: samples, their table, and the yardsticks to compare with; and the parts of `bench-transfer`.

pub mod adapters;
pub mod admission;
pub mod cold_start;
pub mod cpu;
pub mod dropin;
pub mod growth;
pub mod guard;
pub mod iroh;
pub mod load;
pub mod memory;
pub mod nodes;
pub mod options;
pub mod parts;
pub mod pool;
pub mod providers;
pub mod pull;
pub mod report;
pub mod resume;
pub mod space;
pub mod swarm;
pub mod talk;
pub mod throughput;
pub mod trust;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use crate::meter;
use crate::wait::until;

/// Bytes copied at a time by the yardsticks: large enough that system calls do not count.
const BLOCK: usize = 1 << 20;
/// The first argument with which a benchmark runs itself as one end of a yardstick.
const ROLE: &str = "--role";

/// One measured transfer.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Wall time.
    pub seconds: f64,
    /// CPU seconds of the sending process.
    pub sender_cpu: f64,
    /// CPU seconds of the receiving process.
    pub receiver_cpu: f64,
    /// Most memory resident in the sending process, in bytes; 0 when not measured.
    pub sender_peak: u64,
    /// Most memory resident in the receiving process, in bytes; 0 when not measured.
    pub receiver_peak: u64,
}

/// All samples of one way to move the bytes.
#[derive(Debug)]
pub struct Row {
    /// The way.
    pub name: String,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// Adds a sample to the row of that name.
pub fn add(rows: &mut Vec<Row>, name: &str, sample: Sample) {
    match rows.iter_mut().find(|row| row.name == name) {
        Some(row) => row.samples.push(sample),
        None => rows.push(Row { name: name.to_owned(), samples: vec![sample] }),
    }
}

impl Row {
    fn sorted(&self, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        let values = self.sorted(value);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    }

    /// The row as a line of a Markdown table, for `size` bytes moved.
    pub fn line(&self, size: u64) -> String {
        let gib = size as f64 / f64::from(1 << 30);
        let rate = |seconds: f64| size as f64 / 1e6 / seconds;
        let seconds = self.sorted(|s| s.seconds);
        let (fastest, slowest) =
            (seconds.first().copied().unwrap_or(1.0), seconds.last().copied().unwrap_or(1.0));
        let peak = |value: fn(&Sample) -> u64| match self.samples.iter().map(value).max() {
            None | Some(0) => "-".to_owned(),
            Some(bytes) => (bytes >> 20).to_string(),
        };
        format!(
            "| {} | {:.0} ({:.0} to {:.0}) | {:.2} | {:.2} | {:.2} | {} | {} |",
            self.name,
            rate(self.median(|s| s.seconds)),
            rate(fastest),
            rate(slowest),
            self.median(|s| s.sender_cpu + s.receiver_cpu) / gib,
            self.median(|s| s.sender_cpu) / gib,
            self.median(|s| s.receiver_cpu) / gib,
            peak(|s| s.sender_peak),
            peak(|s| s.receiver_peak),
        )
    }
}

/// Panics unless `folder` has so many bytes free.
pub fn require_space(folder: &Path, bytes: u64) {
    let stat = rustix::fs::statvfs(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let free = stat.f_bavail * stat.f_frsize;
    assert!(
        free >= bytes,
        "{} has {} MiB free and {} are needed: set STEELYARD_BENCH_DIR to another folder or STEELYARD_BENCH_MIB lower",
        folder.display(),
        free >> 20,
        bytes >> 20
    );
}

/// Plain TCP over loopback between two processes with one stream and copies of 1 MiB.
pub fn plain_tcp(source: &Path, target: &Path) -> Sample {
    let mut sender = role(&["tcp-send", &source.to_string_lossy()], Stdio::piped());
    let port = first_line(&mut sender);
    let receiver = role(&["tcp-receive", port.trim(), &target.to_string_lossy()], Stdio::null());
    let sample = measure(vec![sender], receiver);
    same_size(source, target);
    sample
}

/// A static HTTP server and a stock client: nginx where it is installed, else one of 30 lines, and curl.
pub fn static_http(source: &Path, target: &Path) -> (&'static str, Sample) {
    let folder = target.with_extension("http");
    fs::create_dir_all(&folder).expect("a folder for the server");
    let (name, server, address) = match nginx() {
        Some(nginx) => {
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
            let address = port.to_string();
            ("nginx and curl", serve_http(Command::new(nginx), &address, source, &folder), address)
        }
        None => {
            let mut server = role(&["http-serve", &source.to_string_lossy()], Stdio::piped());
            let port = first_line(&mut server);
            let address = format!("127.0.0.1:{}", port.trim());
            ("static HTTP server of our own and curl", Server(server), address)
        }
    };
    let before = server.cpu();
    let client = Command::new("curl")
        .args(["--silent", "--fail", "--output"])
        .arg(target)
        .arg(format!("http://{address}/model"))
        .spawn()
        .expect("run curl");
    let mut sample = measure(Vec::new(), client);
    sample.sender_cpu = server.cpu() - before;
    sample.sender_peak = meter::peak_resident(server.0.id());
    drop(server);
    same_size(source, target);
    let _ = fs::remove_dir_all(&folder);
    (name, sample)
}

/// Where nginx is installed.
pub fn nginx() -> Option<&'static str> {
    ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())
}

/// A server process; killed when it goes.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        meter::cpu_seconds(self.0.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `nginx` as one process that serves `source` as `/model` at `address`, with all that it writes in `folder`.
pub fn serve_http(mut nginx: Command, address: &str, source: &Path, folder: &Path) -> Server {
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
         events {{}}\nhttp {{ access_log off; sendfile on; client_body_temp_path {at}/a; proxy_temp_path {at}/b;\n\
         fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
         server {{ listen {address}; location = /model {{ alias {}; }} }} }}\n",
        source.display()
    );
    fs::write(folder.join("nginx.conf"), config).expect("write nginx.conf");
    nginx.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder).current_dir(folder);
    let server = nginx.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run nginx");
    // It writes its identifier once its sockets are open.
    until("nginx to listen", || {
        let text = fs::read_to_string(folder.join("pid")).ok()?;
        (!text.trim().is_empty()).then_some(())
    });
    Server(server)
}

fn same_size(source: &Path, target: &Path) {
    let size = |path: &Path| path.metadata().map(|meta| meta.len()).expect("a file");
    assert_eq!(size(source), size(target), "the copy is whole");
    fs::remove_file(target).expect("remove the copy");
}

/// Waits for the receiver, then for the senders, and reads what they used before each is reaped.
fn measure(mut senders: Vec<Child>, mut receiver: Child) -> Sample {
    let start = Instant::now();
    let (receiver_cpu, receiver_peak) = finish(&mut receiver);
    let seconds = start.elapsed().as_secs_f64();
    let mut sample = Sample { seconds, sender_cpu: 0.0, receiver_cpu, sender_peak: 0, receiver_peak };
    for sender in &mut senders {
        let (cpu, peak) = finish(sender);
        sample.sender_cpu += cpu;
        sample.sender_peak = sample.sender_peak.max(peak);
    }
    sample
}

/// Waits until the process is over without reaping it, reads its CPU time, then reaps it. Memory is sampled while it runs.
fn finish(child: &mut Child) -> (f64, u64) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let id = WaitId::Pid(Pid::from_child(child));
    let mut peak = 0;
    loop {
        peak = meter::peak_resident(child.id()).max(peak);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(id.clone(), options) {
            Ok(None) => std::thread::sleep(std::time::Duration::from_millis(2)),
            _ => break,
        }
    }
    let cpu = meter::cpu_seconds(child.id());
    let status = child.wait().expect("the process's end");
    assert!(status.success(), "one end of the yardstick ended with {status}");
    (cpu, peak)
}

fn role(args: &[&str], stdout: Stdio) -> Child {
    let me = std::env::current_exe().expect("this executable's path");
    Command::new(me).arg(ROLE).args(args).stdout(stdout).spawn().expect("run one end of the yardstick")
}

fn first_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    let pipe = child.stdout.as_mut().expect("a pipe");
    while pipe.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// Plays one end of a yardstick when the program was started as one; a benchmark calls it first.
pub fn run_role() -> Option<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().map(String::as_str) != Some(ROLE) {
        return None;
    }
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let result = match words[..] {
        ["tcp-send", file] => {
            listen().and_then(|listener| copy(&mut File::open(file)?, &mut listener.accept()?.0))
        }
        ["tcp-receive", port, file] => TcpStream::connect(format!("127.0.0.1:{port}"))
            .and_then(|mut stream| copy(&mut stream, &mut File::create(file)?)),
        ["http-serve", file] => listen().and_then(|listener| http_serve(&listener, file)),
        _ => Err(io::Error::other("unknown role")),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{words:?}: {error}");
            ExitCode::FAILURE
        }
    })
}

fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    Ok(listener)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block)? {
            0 => return to.flush(),
            n => to.write_all(&block[..n])?,
        }
    }
}

/// Serves one file to whoever asks, by `sendfile` (which [`io::copy`] uses from a file to a socket), until it is killed.
fn http_serve(listener: &TcpListener, file: &str) -> io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = [0; 4096];
        if stream.read(&mut request)? == 0 {
            continue;
        }
        let mut file = File::open(file)?;
        let length = file.metadata()?.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
        io::copy(&mut file, &mut stream)?;
    }
    Ok(())
}
