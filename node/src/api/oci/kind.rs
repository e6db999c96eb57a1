//! Which ModelPack layer a file is. By its name alone, and by nothing that another version of this program could see otherwise:
//! the same release must have the same manifest on every node. A changed rule is a new digest of every manifest.

use registry::attachment;
use registry::statement::File;

/// Unarchived, uncompressed weights.
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
/// What weights need to be loaded: tokenisers, settings.
const CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
/// What people read.
const DOC: &str = "application/vnd.cncf.model.doc.v1.raw";
/// Programs.
const CODE: &str = "application/vnd.cncf.model.code.v1.raw";
/// Data.
const DATASET: &str = "application/vnd.cncf.model.dataset.v1.raw";

/// The media type of a file's layer, and whether the name told it.
pub(super) fn layer(file: &File) -> (&'static str, bool) {
    if attachment::Kind::of(&file.media_type).is_some() {
        return (DOC, true);
    }
    let name = file.path.rsplit('/').next().unwrap_or(&file.path).to_ascii_lowercase();
    if ["license", "licence", "notice", "readme", "copying", "use_policy"]
        .iter()
        .any(|word| name.starts_with(word))
    {
        return (DOC, true);
    }
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "safetensors" | "gguf" | "npy" | "npz" | "onnx" => (WEIGHT, true),
        "json" | "jsonl" | "yaml" | "yml" | "toml" | "jinja" | "txt" | "model" | "tiktoken" | "vocab" => {
            (CONFIG, true)
        }
        "md" | "rst" | "pdf" | "png" | "jpg" | "jpeg" | "gif" | "webp" | "sig" => (DOC, true),
        "py" | "sh" | "c" | "cpp" | "h" | "rs" | "go" | "js" | "ts" => (CODE, true),
        "csv" | "tsv" | "parquet" | "arrow" => (DATASET, true),
        _ => (WEIGHT, false),
    }
}

/// Whether the file is a model in GGUF, by its name.
pub(super) fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a GGUF file is a projector for pictures or sound, which belongs beside a model.
pub(super) fn is_projector(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.starts_with("mmproj") && is_gguf(path)
}

/// Whether the file is the text of a licence.
pub(super) fn is_licence(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    ["license", "licence", "license.txt", "licence.txt", "license.md", "licence.md"].contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use registry::Digest;
    use registry::digest::Sha256;

    use super::*;

    #[test]
    fn names_tell_the_layer() {
        let of = |path: &str| {
            layer(&File {
                path: path.to_owned(),
                blake3: Digest::of(b""),
                sha256: Sha256::from_bytes([0; 32]),
                size: 0,
                media_type: "application/octet-stream".to_owned(),
                chunk_map: Digest::of(b""),
            })
        };
        assert_eq!(of("a/model.SAFETENSORS"), (WEIGHT, true));
        assert_eq!(of("tokenizer.json"), (CONFIG, true));
        assert_eq!(of("README.md"), (DOC, true));
        assert_eq!(of("LICENSE"), (DOC, true));
        assert_eq!(of("modeling.py"), (CODE, true));
        assert_eq!(of("weights.bin"), (WEIGHT, false));
        assert!(is_projector("x/mmproj-model-f16.gguf") && !is_projector("model.gguf"));
    }
}
