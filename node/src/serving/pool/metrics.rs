//! A pool's numbers, for Prometheus. Those of what is computed are each worker's own, at its own address.

use std::fmt::Write;

use super::{MemberState, PoolInfo, PoolMember};

/// What is told of each member.
type Of = fn(&PoolMember) -> u64;

const STATES: [MemberState; 4] =
    [MemberState::Unloaded, MemberState::Loading, MemberState::Ready, MemberState::Unloading];

/// In Prometheus's text format.
pub(super) fn text(pool: &PoolInfo) -> String {
    let mut text = String::new();
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = write!(text, "# HELP steelyard_pool_{name} {help}\n# TYPE steelyard_pool_{name} {kind}\n");
    };
    for (name, help, value) in [
        ("budget_bytes", "Memory that the models may need together.", pool.budget),
        ("used_bytes", "Memory of it that they have.", pool.used),
        ("waiting", "Requests that wait for their model.", pool.waiting.into()),
    ] {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "steelyard_pool_{name} {value}");
    }
    let members: [(&str, &str, &str, Of); 6] = [
        ("model_needs_bytes", "gauge", "Memory that the model needs; 0 before it is known.", |it| {
            it.needs.unwrap_or(0)
        }),
        ("model_memory_bytes", "gauge", "Memory of the budget that the model has.", |it| it.memory),
        ("model_requests", "gauge", "Requests for the model under way.", |it| it.requests.into()),
        ("model_waiting", "gauge", "Requests that wait for the model.", |it| it.waiting.into()),
        ("model_loads_total", "counter", "How often the model was loaded.", |it| it.loads),
        ("model_unloads_total", "counter", "How often the model was unloaded.", |it| it.unloads),
    ];
    for (name, kind, help, value) in members {
        head(&mut text, name, kind, help);
        for member in &pool.members {
            let _ = writeln!(text, "steelyard_pool_{name}{{{}}} {}", labels(member), value(member));
        }
    }
    head(&mut text, "model_state", "gauge", "1 for the state that the model is in.");
    for member in &pool.members {
        for state in STATES {
            let is = u8::from(member.state == state);
            let _ = writeln!(
                text,
                "steelyard_pool_model_state{{{},state=\"{}\"}} {is}",
                labels(member),
                state.as_str()
            );
        }
    }
    text
}

/// Names and versions have no character that would need escaping.
fn labels(member: &PoolMember) -> String {
    format!("model=\"{}\",version=\"{}\"", member.model, member.version)
}
