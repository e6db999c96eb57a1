//! Large files by the protocol of Git LFS: asking, putting whole or in parts, and looking whether it arrived.

use std::io::Read;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use registry::Timestamp;
use registry::digest::Sha256;
use registry::statement::MAX_FILE_SIZE;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::super::Api;
use super::super::super::guard::{Body, Path};
use super::super::caller::Caller;
use super::super::refusal::Refusal;
use super::super::text;
use super::body::{pour, refuse};
use super::seal::{count, permitted};
use super::{MAX_JSON, Released, author, off, own_model};
use crate::error::Problem;
use crate::staging::{Area, Parts, Releases, StagingError, each_block};

/// Most objects of one question: the clients ask for 256.
const MAX_OBJECTS: usize = 1024;
/// Seconds for which an address to put something is good: half a day, for the slowest line.
const GOOD_FOR: i64 = 12 * 3600;

/// Content that somebody wants to upload.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    oid: String,
    size: u64,
}

impl Object {
    fn oid(&self) -> Result<Sha256, Refusal> {
        Sha256::from_hex(&self.oid).map_err(|_| Refusal::Wrong("`oid` is no SHA-256".to_owned()))
    }
}

/// What is to be uploaded, and how the client can.
#[derive(Debug, Deserialize)]
pub(super) struct Batch {
    operation: String,
    #[serde(default)]
    transfers: Vec<String>,
    objects: Vec<Object>,
    #[serde(default)]
    hash_algo: Option<String>,
}

/// The model of a path whose last part may end in `.git`, as the protocol has it.
fn repo(path: (String, String)) -> (String, String) {
    let (nation, name) = path;
    let name = name.strip_suffix(".git").map(str::to_owned).unwrap_or(name);
    (nation, name)
}

/// `POST /{nation}/{name}.git/info/lfs/objects/batch`.
pub(super) async fn batch(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String)>, Problem>,
    body: Result<Body<Batch>, Problem>,
) -> Result<Json<Value>, Refusal> {
    let by = author(&api, &caller)?;
    let (Path(path), Body(batch)) = (path?, body?);
    let (nation, name) = repo(path);
    let model = own_model(&api, &caller, &nation, &name)?;
    if batch.operation != "upload" || batch.hash_algo.as_deref().is_some_and(|algo| algo != "sha256") {
        return Err(Refusal::Wrong(
            "only uploads named by SHA-256 go this way; files are read at `resolve`".to_owned(),
        ));
    }
    if batch.objects.len() > MAX_OBJECTS {
        return Err(Refusal::Wrong(format!("a question names at most {MAX_OBJECTS} objects")));
    }
    let offers = |name: &str| batch.transfers.iter().any(|offered| offered == name);
    // Who can do Xet asks there what is here already.
    if offers("xet") {
        let objects: Vec<Value> = batch
            .objects
            .iter()
            .map(|it| json!({ "oid": it.oid, "size": it.size, "authenticated": true }))
            .collect();
        return Ok(Json(json!({ "transfer": "xet", "objects": objects })));
    }
    let oids = batch.objects.iter().map(Object::oid).collect::<Result<Vec<_>, _>>()?;
    let (asked, of) = (api.clone(), model.clone());
    let sizes: Vec<u64> = batch.objects.iter().map(|object| object.size).collect();
    let here = off(move || {
        let (area, releases) = (&asked.hub().push.area, Released::of(&asked, &of)?);
        let mut here = Vec::with_capacity(oids.len());
        let mut missing = 0u64;
        for (oid, size) in oids.iter().zip(sizes) {
            let known = area.size_of(oid).is_some() || releases.content(oid)?.is_some();
            if !known {
                missing = missing.saturating_add(size);
            }
            here.push(known);
        }
        area.fits(missing)?;
        Ok(here)
    })
    .await?;
    let multipart = offers("multipart");
    let now = Timestamp::now();
    let objects = batch.objects.iter().zip(here).map(|(object, here)| {
        let Object { oid, size } = object;
        if *size > MAX_FILE_SIZE || *size == 0 {
            let message = format!("content has 1 to {MAX_FILE_SIZE} bytes; split it into shards");
            return json!({ "oid": oid, "size": size, "error": { "code": 422, "message": message } });
        }
        if here {
            return json!({ "oid": oid, "size": size, "authenticated": true });
        }
        let parts = Parts::of(*size).filter(|_| multipart);
        let address = |part: u64| {
            let (seal, _) =
                api.hub().push.seals.make(&what(oid, *size, part, parts.as_ref()), &by.id, GOOD_FOR, now);
            let cut = parts.as_ref().map_or(0, |parts| parts.part);
            format!(
                "{}/{model}/info/lfs/content/{oid}?size={size}&cut={cut}&part={part}&seal={}",
                caller.origin,
                text::encode(&seal)
            )
        };
        let mut head = Map::new();
        if let Some(parts) = &parts {
            head.insert("chunk_size".to_owned(), parts.part.to_string().into());
            for part in 1..=parts.count() {
                head.insert(part.to_string(), address(part).into());
            }
        }
        json!({
            "oid": oid,
            "size": size,
            "authenticated": true,
            "actions": {
                "upload": { "href": address(0), "header": head },
                "verify": { "href": format!("{}/{model}/info/lfs/verify", caller.origin), "header": {} },
            },
        })
    });
    let objects: Vec<Value> = objects.collect();
    let transfer = if multipart { "multipart" } else { "basic" };
    Ok(Json(json!({ "transfer": transfer, "objects": objects })))
}

/// What a seal is for: one content, whole (part 0) or one part of it.
fn what(oid: &str, size: u64, part: u64, parts: Option<&Parts>) -> String {
    format!("lfs {oid} {size} {part} {}", parts.map_or(0, |parts| parts.part))
}

/// One upload that was permitted.
struct Permit {
    oid: Sha256,
    size: u64,
    part: u64,
    parts: Option<Parts>,
}

/// The clients show no token here: the address itself is the permission.
fn permit(api: &Api, request: &Request, oid: &str) -> Result<Permit, Refusal> {
    count(api, request, 1.0)?;
    let query = text::pairs(request.uri().query().unwrap_or_default());
    let number = |name: &str| text::first(&query, name).and_then(|value| value.parse::<u64>().ok());
    let (Some(size), Some(cut), Some(part), Some(seal), Ok(oid)) =
        (number("size"), number("cut"), number("part"), text::first(&query, "seal"), Sha256::from_hex(oid))
    else {
        return Err(Refusal::BadToken);
    };
    let parts = (cut > 0).then_some(Parts { size, part: cut });
    permitted(api, &what(&oid.to_hex(), size, part, parts.as_ref()), seal)?;
    Ok(Permit { oid, size, part, parts })
}

type Three = Result<Path<(String, String, String)>, Problem>;

/// `PUT …/info/lfs/content/{oid}`: content, or a part of it.
pub(super) async fn put(State(api): State<Api>, path: Three, request: Request) -> Result<Response, Refusal> {
    let permit = path.map_err(Refusal::from).and_then(|Path((_, _, oid))| permit(&api, &request, &oid));
    let Permit { oid, size, part, parts } = match permit {
        Ok(permit) => permit,
        Err(refusal) => return Err(refuse(request.into_body(), refusal).await),
    };
    let area = Arc::clone(&api.hub().push.area);
    match parts {
        Some(parts) => {
            let most = parts.range(part).map_or(0, |(_, len)| len);
            let etag = pour(&api, request.into_body(), most, move |mut pieces| {
                area.take_part(&oid, &parts, part, &mut pieces)
            });
            let etag = format!("\"{}\"", etag.await?);
            Ok(([(header::ETAG, etag)], ()).into_response())
        }
        None => {
            pour(&api, request.into_body(), size, move |pieces| whole(&area, &oid, size, pieces)).await?;
            Ok(().into_response())
        }
    }
}

fn whole(area: &Area, oid: &Sha256, size: u64, mut from: impl Read) -> Result<(), StagingError> {
    let mut incoming = area.incoming(size)?;
    each_block(&mut from, |bytes| incoming.take(bytes))?;
    area.finish(incoming, Some(oid), Some(size)).map(|_| ())
}

/// A part that its sender says is there.
#[derive(Debug, Deserialize)]
struct Sent {
    #[serde(rename = "partNumber")]
    number: u64,
    etag: String,
}

#[derive(Debug, Deserialize)]
struct Join {
    parts: Vec<Sent>,
}

/// `POST …/info/lfs/content/{oid}`: all parts are there.
pub(super) async fn join(
    State(api): State<Api>,
    path: Three,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Path((_, _, oid)) = path?;
    let Permit { oid, parts, .. } = permit(&api, &request, &oid)?;
    let parts = parts.ok_or_else(|| Refusal::Wrong("this content goes whole".to_owned()))?;
    let area = Arc::clone(&api.hub().push.area);
    pour::<()>(&api, request.into_body(), MAX_JSON as u64, move |pieces| {
        let join: Join = serde_json::from_reader(std::io::BufReader::new(pieces))
            .map_err(|error| StagingError::Wrong(format!("the parts are not understood: {error}")))?;
        let tags: Vec<_> = join.parts.into_iter().map(|sent| (sent.number, sent.etag)).collect();
        area.join_parts(&oid, &parts, &tags)
    })
    .await?;
    Ok(Json(json!({})))
}

/// `POST …/info/lfs/verify`: whether content is here.
pub(super) async fn verify(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String)>, Problem>,
    body: Result<Body<Object>, Problem>,
) -> Result<Json<Value>, Refusal> {
    author(&api, &caller)?;
    let (Path(path), Body(object)) = (path?, body?);
    let (nation, name) = repo(path);
    let model = own_model(&api, &caller, &nation, &name)?;
    let (oid, size) = (object.oid()?, object.size);
    let here = off(move || {
        let area = &api.hub().push.area;
        match area.size_of(&oid) {
            Some(here) => Ok(here == size),
            None => Ok(Released::of(&api, &model)?.content(&oid)?.is_some_and(|file| file.size == size)),
        }
    });
    match here.await? {
        true => Ok(Json(json!({ "oid": object.oid, "size": size }))),
        false => Err(Refusal::push(404, None, "this content is not here; upload it again")),
    }
}
