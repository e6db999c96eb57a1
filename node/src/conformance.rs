//! How the vectors of documents 05 and 06 are run (see [`registry::conformance`]).

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint, Multiaddr};
use registry::chunk::{Chunk, ChunkMap};
use registry::conformance::{
    Outcome, Runner, broken, bytes, bytes_of, folder, items, number, parsed, same, size, text,
};
use registry::statement::Statement;
use registry::store::Store;
use registry::trust::Trust;
use registry::{Digest, Nation, Signed, Timestamp, publish};
use serde_json::{Value, json};

use crate::gossip::{self, Announced};
use crate::swarm::hello::opens_hello;
use crate::wire::{
    self, Answer, FeedPage, FeedRequest, Have, Hello, LogAnswer, LogRequest, News, Order, Refusal, Request,
    Verdict, WireError,
};
use crate::{discovery, sync, transfer};

/// What this crate runs: one function a kind.
pub const KINDS: &[(&str, Runner)] = &[
    ("hello", hello),
    ("verdict", verdict),
    ("hello-answer", hello_answer),
    ("verdicts", verdicts),
    ("hello-opener", hello_opener),
    ("frame", frame),
    ("blob-request", blob_request),
    ("blob-order", blob_order),
    ("blob-answer", blob_answer),
    ("availability", availability),
    ("chunk-range", chunk_range),
    ("map-limit", map_limit),
    ("permission", permission),
    ("feed", feed),
    ("feed-request", feed_request),
    ("feed-page", feed_page),
    ("log-request", log_request),
    ("log-answer", log_answer),
    ("gossip", gossiped),
    ("announcement", announcement),
    ("provider-key", provider_key),
];

fn code(error: WireError) -> String {
    error.code().to_owned()
}

fn hello(input: &Value) -> Outcome {
    let hello = Hello::decode(&bytes(input, "bytes")?).map_err(code)?;
    same(hello.encode(), bytes(input, "bytes")?)?;
    Ok(json!({ "length": hello.certificate.len() }))
}

fn verdict(input: &Value) -> Outcome {
    let byte = small(&input["byte"])?;
    let verdict = Verdict::decode(byte).map_err(code)?;
    same(verdict as u8, byte)?;
    Ok(json!({ "name": verdict.code() }))
}

fn hello_answer(input: &Value) -> Outcome {
    let now: Timestamp = parsed(input, "now")?;
    let roots = roots(input)?;
    let own = roots.first().ok_or_else(|| broken("no root"))?.peek().map_err(broken)?.nation().clone();
    let mut trust = Trust::new(own);
    for root in &roots {
        // Pinned while it was valid.
        trust.pin(root, root.digest(), "2026-11-02T00:00:00Z".parse().map_err(broken)?).map_err(broken)?;
    }
    let verdict = match Signed::parse(&bytes(input, "signed")?) {
        Err(error) => Verdict::of(&error.into()),
        Ok(signed) => match trust.verify_node(&signed, text(input, "peer")?, now) {
            Ok(_) => Verdict::Accepted,
            Err(error) => Verdict::of(&error),
        },
    };
    Ok(json!({ "verdict": verdict as u8, "name": verdict.code() }))
}

fn verdicts(input: &Value) -> Outcome {
    let read = |key: &str| Verdict::decode(small(&input[key])?).map_err(broken);
    Ok(json!({ "admitted": read("sent")?.admits(read("received")?) }))
}

/// Where libp2p has more than one way to come to the same part, all of them.
fn hello_opener(input: &Value) -> Outcome {
    let peer = PeerId::random();
    let (client, dialled) =
        (text(input, "tls")? == "client", input["dialled"].as_bool().ok_or_else(|| broken("no `dialled`"))?);
    let address: Multiaddr = match text(input, "transport")? {
        "tcp" => "/ip4/192.0.2.1/tcp/4801".to_owned(),
        "quic" => "/ip4/192.0.2.1/udp/4801/quic-v1".to_owned(),
        _ => format!("/ip4/192.0.2.1/tcp/4801/p2p/{peer}/p2p-circuit"),
    }
    .parse()
    .map_err(broken)?;
    let quic = text(input, "transport")? == "quic";
    let dialer = |role_override, port_use| ConnectedPoint::Dialer {
        address: address.clone(),
        role_override,
        port_use,
    };
    let points = match (dialled, client) {
        (false, _) => {
            vec![ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address.clone() }]
        }
        (true, true) if quic => vec![
            dialer(Endpoint::Dialer, PortUse::Reuse),
            dialer(Endpoint::Dialer, PortUse::New),
            dialer(Endpoint::Listener, PortUse::Reuse),
        ],
        (true, true) => {
            vec![dialer(Endpoint::Dialer, PortUse::Reuse), dialer(Endpoint::Dialer, PortUse::New)]
        }
        (true, false) if quic => vec![dialer(Endpoint::Listener, PortUse::New)],
        (true, false) => {
            vec![dialer(Endpoint::Listener, PortUse::Reuse), dialer(Endpoint::Listener, PortUse::New)]
        }
    };
    let opens = points.first().is_some_and(opens_hello);
    same(points.iter().all(|point| opens_hello(point) == opens), true)?;
    Ok(json!({ "opens": opens }))
}

fn frame(input: &Value) -> Outcome {
    let (data, limit) = (bytes(input, "bytes")?, size(&input["limit"])?);
    let (kind, body) = wire::split_frame(&data, limit).map_err(code)?;
    same(&wire::frame(kind, body), &data)?;
    Ok(json!({ "type": kind, "length": body.len() }))
}

fn request(data: &[u8]) -> Result<Request, WireError> {
    let (kind, body) = wire::split_frame(data, wire::MAX_REQUEST)?;
    Request::decode(kind, body)
}

fn blob_request(input: &Value) -> Outcome {
    let data = bytes(input, "bytes")?;
    let request = request(&data).map_err(code)?;
    same(request.encode(), data)?;
    Ok(match request {
        Request::Open { release } => json!({ "request": "open", "release": release }),
        Request::Map { file } => json!({ "request": "map", "file": file }),
        Request::Watch => json!({ "request": "watch" }),
        Request::Chunks { file, first, count, encoded } => {
            let name = if encoded { "encoded-chunks" } else { "chunks" };
            json!({ "request": name, "file": file, "first": first, "count": count })
        }
        Request::Cancel { file, first, count } => {
            json!({ "request": "cancel", "file": file, "first": first, "count": count })
        }
    })
}

fn blob_order(input: &Value) -> Outcome {
    let mut order = Order::default();
    for data in items(input, "requests")? {
        let data = bytes_of(data).map_err(broken)?;
        order.check(&request(&data).map_err(code)?).map_err(code)?;
    }
    Ok(json!({}))
}

fn blob_answer(input: &Value) -> Outcome {
    let data = bytes(input, "bytes")?;
    let answer = Answer::decode_frame(&data).map_err(code)?;
    same(answer.encode(), data)?;
    Ok(match answer {
        Answer::Opened { complete } => json!({ "answer": "opened", "complete": complete }),
        Answer::Map { len } => json!({ "answer": "map", "length": len }),
        Answer::Data { len } => json!({ "answer": "data", "length": len }),
        Answer::Encoded { encoding, len } => {
            json!({ "answer": "encoded", "encoding": encoding, "length": len })
        }
        Answer::News(News { file, replaces, have }) => {
            let have = match have {
                Have::Nothing => json!("nothing"),
                Have::Everything => json!("everything"),
                Have::Some(bits) => json!(data_encoding::HEXLOWER.encode(&bits)),
                Have::Runs(runs) => json!(runs),
            };
            json!({ "answer": "have", "file": file, "replaces": replaces, "have": have })
        }
        Answer::Refused(why) => json!({ "answer": "refused", "why": refusal(why) }),
    })
}

fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::NotFound => "not-found",
        Refusal::Recalled => "recalled",
        Refusal::Busy => "busy",
        Refusal::Missing => "missing",
        Refusal::NotAllowed => "not-allowed",
        Refusal::Cancelled => "cancelled",
    }
}

fn availability(input: &Value) -> Outcome {
    let Answer::News(News { have, .. }) = Answer::decode_frame(&bytes(input, "bytes")?).map_err(code)? else {
        return Err(broken("not availability"));
    };
    let chunks = size(&input["chunks"])?;
    if chunks > registry::chunk::MAX_CHUNKS {
        return Err(broken("no file has so many chunks"));
    }
    have.check(chunks).map_err(code)?;
    let has: Vec<usize> = (0..chunks).filter(|index| have.has(*index as u32)).collect();
    Ok(json!({ "has": has }))
}

fn chunk_range(input: &Value) -> Outcome {
    let lens: Vec<u32> = serde_json::from_value(input["lengths"].clone()).map_err(broken)?;
    let chunks: Vec<Chunk> = lens.iter().map(|len| Chunk { digest: Digest::of(b"x"), len: *len }).collect();
    let size = lens.iter().map(|len| u64::from(*len)).sum();
    let blob = if lens.is_empty() { Digest::of(b"") } else { Digest::of(b"x") };
    let map = ChunkMap::new(blob, size, chunks).map_err(broken)?;
    let field = |key: &str| number(&input[key]).and_then(|value| u32::try_from(value).map_err(broken));
    let range = wire::range(&map, field("first")?, field("count")?).map_err(code)?;
    Ok(json!({ "start": range.start, "end": range.end }))
}

fn map_limit(input: &Value) -> Outcome {
    Ok(json!({ "bytes": wire::max_map(number(&input["size"])?) }))
}

fn roots(input: &Value) -> Result<Vec<Signed>, String> {
    let read = |root| Signed::parse(&bytes_of(root).map_err(broken)?).map_err(broken);
    items(input, "roots")?.iter().map(read).collect()
}

fn small(value: &Value) -> Result<u8, String> {
    u8::try_from(number(value)?).map_err(broken)
}

/// A store of the first root's nation that has learnt the statements.
fn store(input: &Value) -> Result<(tempfile::TempDir, Store), String> {
    let now: Timestamp = parsed(input, "now")?;
    let dir = folder()?;
    let roots = roots(input)?;
    let (own, others) = roots.split_first().ok_or_else(|| broken("no root"))?;
    let store = Store::create(dir.path(), own, now).map_err(broken)?;
    for root in others {
        store.pin_nation(root, root.digest(), now).map_err(broken)?;
    }
    for statement in items(input, "statements")? {
        let signed = Signed::parse(statement.as_str().unwrap_or_default().as_bytes()).map_err(broken)?;
        publish::learn(&store, &signed, now).map_err(broken)?;
    }
    Ok((dir, store))
}

fn permission(input: &Value) -> Outcome {
    let (_dir, store) = store(input)?;
    let release = text(input, "release")?.parse().map_err(broken)?;
    let nation = Nation::new(text(input, "nation")?).map_err(broken)?;
    let answer = match transfer::permission(&store, &release, &nation).map_err(broken)? {
        Ok(_) => "opened",
        Err(why) => refusal(why),
    };
    Ok(json!({ "answer": answer }))
}

fn feed(input: &Value) -> Outcome {
    let (_dir, store) = store(input)?;
    let nation = Nation::new(text(input, "nation")?).map_err(broken)?;
    let limit = u16::try_from(number(&input["limit"])?).map_err(broken)?;
    let request = FeedRequest { after: number(&input["after"])?, limit };
    let (page, statements) = sync::make_page(&store, &nation, [0; 16], request).map_err(broken)?;
    same(usize::from(page.count), statements.len())?;
    let digest = |json: &Vec<u8>| Signed::parse(json).map(|signed| signed.digest()).map_err(broken);
    let digests = statements.iter().map(digest).collect::<Result<Vec<Digest>, _>>()?;
    Ok(json!({ "digests": digests, "next": page.next }))
}

fn feed_request(input: &Value) -> Outcome {
    let data = bytes(input, "bytes")?;
    let (kind, body) = wire::split_frame(&data, wire::MAX_REQUEST).map_err(code)?;
    let request = FeedRequest::decode(kind, body).map_err(code)?;
    same(request.encode(), data)?;
    Ok(json!({ "after": request.after, "limit": request.limit }))
}

fn feed_page(input: &Value) -> Outcome {
    let data = bytes(input, "bytes")?;
    let (kind, body) = wire::split_frame(&data, wire::MAX_REQUEST).map_err(code)?;
    let page = FeedPage::decode(kind, body).map_err(code)?;
    same(page.encode(), data)?;
    let epoch = data_encoding::HEXLOWER.encode(&page.epoch);
    Ok(json!({ "epoch": epoch, "next": page.next, "more": page.more, "count": page.count }))
}

fn first(data: &[u8]) -> Result<u8, String> {
    data.first().copied().ok_or_else(|| broken("no bytes"))
}

fn log_request(input: &Value) -> Outcome {
    let data = bytes(input, "bytes")?;
    let (kind, body) = wire::split_frame(&data, wire::log_request_limit(first(&data)?)).map_err(code)?;
    let request = LogRequest::decode(kind, body).map_err(code)?;
    same(&request.encode(), &data)?;
    Ok(match request {
        LogRequest::Heads => json!({ "request": "heads" }),
        LogRequest::Checkpoint(nation) => json!({ "request": "checkpoint", "nation": nation }),
        LogRequest::Entries { nation, from, to } => {
            json!({ "request": "entries", "nation": nation, "from": from, "to": to })
        }
        LogRequest::Proof { nation, old, new } => {
            json!({ "request": "proof", "nation": nation, "old": old, "new": new })
        }
        LogRequest::AddCheckpoint(body) => json!({ "request": "cosign", "length": body.len() }),
    })
}

fn log_answer(input: &Value) -> Outcome {
    let data = bytes(input, "bytes")?;
    let limit = wire::log_answer_limit(first(&data)?).ok_or("type")?;
    let (kind, body) = wire::split_frame(&data, limit).map_err(code)?;
    let answer = LogAnswer::decode(kind, body).map_err(code)?;
    same(&answer.encode(), &data)?;
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    Ok(match answer {
        LogAnswer::Heads(count) => json!({ "answer": "heads", "count": count }),
        LogAnswer::Checkpoint(note) => json!({ "answer": "checkpoint", "length": note.len() }),
        LogAnswer::Evidence(text) => json!({ "answer": "evidence", "length": text.len() }),
        LogAnswer::Entries { from, entries } => {
            let entries: Vec<String> = entries.iter().map(|entry| hex(entry)).collect();
            json!({ "answer": "entries", "from": from, "entries": entries })
        }
        LogAnswer::Proof { root, hashes } => {
            let hashes: Vec<String> = hashes.iter().map(|hash| hex(hash)).collect();
            json!({ "answer": "proof", "root": hex(&root), "hashes": hashes })
        }
        LogAnswer::Cosignatures(lines) => json!({ "answer": "cosignatures", "length": lines.len() }),
        LogAnswer::Refused { why, size } => json!({ "answer": "refused", "why": why.as_str(), "size": size }),
    })
}

fn shown(data: &[u8]) -> Outcome {
    match gossip::parse(data) {
        Some(Announced::Hint(nation, digest)) => Ok(json!({ "hint": nation, "digest": digest })),
        Some(Announced::Recall(json)) => Ok(json!({ "recall": String::from_utf8(json).map_err(broken)? })),
        Some(Announced::Log(nation, size, cosigned)) => {
            Ok(json!({ "log": nation, "size": size, "cosigned": cosigned }))
        }
        Some(Announced::Evidence(json)) => {
            Ok(json!({ "evidence": String::from_utf8(json).map_err(broken)? }))
        }
        None => Err("gossip".to_owned()),
    }
}

fn gossiped(input: &Value) -> Outcome {
    shown(&bytes(input, "bytes")?)
}

fn announcement(input: &Value) -> Outcome {
    let (_dir, store) = store(input)?;
    let digest = text(input, "announce")?.parse().map_err(broken)?;
    let signed = store.statement(&digest).map_err(broken)?.ok_or_else(|| broken("not learnt"))?;
    let statement: Statement = signed.peek().map_err(broken)?;
    shown(&gossip::compose(&store, &signed, &statement).ok_or_else(|| broken("not for announcing"))?)
}

fn provider_key(input: &Value) -> Outcome {
    let release = text(input, "release")?.parse().map_err(broken)?;
    let key = discovery::provider_key(&release);
    Ok(json!({ "key": data_encoding::HEXLOWER.encode(&key.to_vec()) }))
}
