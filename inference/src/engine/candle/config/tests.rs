//! Published configurations are read; each field that would change the mathematics is refused by name.

use serde_json::json;

use super::*;

/// SmolLM2-135M-Instruct's, as published.
fn smollm2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100_000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152,
    })
}

fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151_643,
        "eos_token_id": 151_645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
        "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 1_000_000, "sliding_window": null, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
        "vocab_size": 151_936,
    })
}

fn read(config: &Value) -> Result<Config, ConfigError> {
    Config::read(config.to_string().as_bytes())
}

fn with(mut config: Value, field: &str, value: Value) -> Value {
    config[field] = value;
    config
}

fn without(mut config: Value, field: &str) -> Value {
    config.as_object_mut().unwrap().remove(field);
    config
}

#[test]
fn published_files_are_read() {
    let Config::Decoder(config) = read(&smollm2()).unwrap() else { panic!("a decoder") };
    assert_eq!((config.head_dim, config.heads, config.kv_heads, config.tied), (64, 9, 3, true));
    assert_eq!((config.ends.as_slice(), config.rope.theta, config.window), (&[2][..], 100_000.0, None));
    let Config::Decoder(config) = read(&qwen3()).unwrap() else { panic!("a decoder") };
    assert_eq!((config.head_dim, config.qk_norm, config.bias), (128, true, false));
}

#[test]
fn what_would_change_the_mathematics_is_refused_with_its_name() {
    for (field, value) in [
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("rope_interleaved", json!(true)),
        ("pretraining_tp", json!(2)),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
        ),
        ("rope_scaling", json!({"rope_type": "default", "surprise": 1})),
        ("partial_rotary_factor", json!(0.5)),
        ("sliding_window", json!(4096)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("quantization_config", json!({"quant_method": "awq", "bits": 4})),
        ("logits_scaling", json!(8.0)),
        ("auto_map", json!({"AutoModel": "modeling.Model"})),
        ("model_type", json!("granite")),
        ("rms_norm_eps", json!(0)),
        ("rope_theta", json!(-1)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(63)),
        ("tie_word_embeddings", json!("yes")),
        ("is_encoder_decoder", json!(true)),
    ] {
        let error = read(&with(smollm2(), field, value.clone())).unwrap_err().to_string();
        let told = error.contains(field)
            || error.contains("rope_type")
            || error.contains("surprise")
            || error.contains("sizes");
        // The heads' width has no name of its own in the message.
        assert!(told || error.contains("heads"), "{field} = {value}: {error}");
    }
    let error = read(&with(qwen3(), "use_sliding_window", json!(true))).unwrap_err().to_string();
    assert!(error.contains("use_sliding_window"), "{error}");
}

#[test]
fn absent_fields_are_not_guessed() {
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "rms_norm_eps",
        "rope_theta",
        "max_position_embeddings",
        "hidden_act",
        "model_type",
        "architectures",
    ] {
        let error = read(&without(smollm2(), field)).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
    for field in ["head_dim", "num_key_value_heads"] {
        assert!(
            matches!(read(&without(qwen3(), field)), Err(ConfigError::Absent(absent)) if absent == field)
        );
    }
    // Llama's keys are as many as its queries unless it says otherwise.
    let Config::Decoder(config) = read(&without(smollm2(), "num_key_value_heads")).unwrap() else { panic!() };
    assert_eq!(config.kv_heads, 9);
}

#[test]
fn absurd_sizes_meet_their_limits() {
    for (field, value) in [
        ("hidden_size", json!(MAX_WIDTH + 9)),
        ("intermediate_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(MAX_LAYERS + 1)),
        ("num_attention_heads", json!(0)),
        ("vocab_size", json!(1e300)),
        ("max_position_embeddings", json!(-8)),
        ("num_key_value_heads", json!("many")),
    ] {
        let error = read(&with(smollm2(), field, value)).unwrap_err();
        assert!(matches!(&error, ConfigError::Count { field: told, .. } if *told == field), "{error}");
    }
    let ends: Vec<u32> = (0..=MAX_ENDS as u32).collect();
    assert!(read(&with(smollm2(), "eos_token_id", json!(ends))).is_err());
    assert!(matches!(Config::read(&vec![b' '; MAX_CONFIG as usize + 1]), Err(ConfigError::Malformed(_))));
    let deep = "[".repeat(100_000);
    assert!(matches!(Config::read(deep.as_bytes()), Err(ConfigError::Malformed(_))));
}

#[test]
fn only_what_is_on_the_list_is_an_architecture() {
    for names in [
        json!(["GPT2LMHeadModel"]),
        json!([]),
        json!("LlamaForCausalLM"),
        json!(["LlamaForCausalLM", "BertModel"]),
    ] {
        let error = read(&with(smollm2(), "architectures", names)).unwrap_err();
        assert!(matches!(error, ConfigError::Architecture(_)));
        assert!(
            error.to_string().contains("MistralForCausalLM") && error.to_string().contains("GGUF"),
            "{error}"
        );
    }
}
