//! Lists: repositories and tags, in pages.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use registry::Model;
use serde::Deserialize;
use serde_json::json;

use super::error::{Code, OciError};
use super::object::tag_of;
use super::{Asked, Desk};

/// Most names of one page, and of a page whose length nobody asked for.
const MAX_PAGE: usize = 1000;

#[derive(Deserialize)]
struct Query {
    n: Option<String>,
    last: Option<String>,
}

/// One page of `names`, and where the next one begins.
struct Page {
    names: Vec<String>,
    next: Option<(usize, String)>,
}

fn page(names: BTreeSet<String>, asked: &Asked) -> Result<Page, OciError> {
    let wrong = |why: &str| OciError::new(Code::PaginationNumberInvalid, why);
    let query = axum::extract::Query::<Query>::try_from_uri(&asked.uri)
        .map_err(|_| wrong("the query is not understood"))?
        .0;
    let count = match query.n {
        None => MAX_PAGE,
        Some(n) => {
            n.parse::<u32>().map_err(|_| wrong("`n` is a number of names"))?.min(MAX_PAGE as u32) as usize
        }
    };
    let last = query.last.unwrap_or_default();
    let mut left = names.into_iter().filter(|name| last.is_empty() || *name > last);
    let names: Vec<String> = left.by_ref().take(count).collect();
    let next = left.next().and_then(|_| names.last().map(|name| (count, name.clone())));
    Ok(Page { names, next })
}

fn linked(path: &str, next: Option<(usize, String)>, body: serde_json::Value) -> Response {
    let mut response = Json(body).into_response();
    // Names of repositories and tags need no escaping but for the `/`.
    if let Some((count, last)) = next
        && let Ok(link) =
            format!("<{path}?n={count}&last={}>; rel=\"next\"", last.replace('/', "%2F")).parse()
    {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// `GET /v2/_catalog`: the repositories that hold something which a list may name to whoever reads.
pub(super) fn catalog(desk: &Desk, asked: &Asked) -> Result<Response, OciError> {
    let models = desk.oci.shelf.read(&desk.store, super::shelf::Known::models)?;
    let mut names = BTreeSet::new();
    for model in models {
        let visible = desk.visible(&model)?;
        for entry in visible.iter().rev() {
            if desk.offered(&model, entry)? {
                names.insert(model.to_string().to_ascii_lowercase());
                break;
            }
        }
    }
    let page = page(names, asked)?;
    Ok(linked("/v2/_catalog", page.next, json!({ "repositories": page.names })))
}

/// `GET /v2/NAME/tags/list`: the versions and channels of a model.
pub(super) fn tags(desk: &Desk, model: &Model, asked: &Asked) -> Result<Response, OciError> {
    let mut releases = BTreeSet::new();
    let mut names = BTreeSet::new();
    for entry in desk.visible(model)? {
        if desk.offered(model, &entry)? {
            names.insert(tag_of(&entry.version));
            releases.insert(entry.release);
        }
    }
    for (_, channel) in desk.store.channels()? {
        if channel.model == *model && releases.contains(&channel.release) {
            names.insert(channel.channel.to_string());
        }
    }
    let page = page(names, asked)?;
    let name = model.to_string().to_ascii_lowercase();
    let path = format!("/v2/{name}/tags/list");
    Ok(linked(&path, page.next, json!({ "name": name, "tags": page.names })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderMap;

    use super::*;

    fn asked(query: &str) -> Asked {
        let uri = format!("/v2/a/b/tags/list?{query}").parse().unwrap();
        Asked { head: false, headers: HeaderMap::new(), uri }
    }

    #[test]
    fn pages_follow_each_other() {
        let names = || ["a", "b", "c"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
        let first = page(names(), &asked("n=2")).unwrap();
        assert_eq!(
            (first.names, first.next),
            (vec!["a".to_owned(), "b".to_owned()], Some((2, "b".to_owned())))
        );
        let second = page(names(), &asked("n=2&last=b")).unwrap();
        assert_eq!((second.names, second.next), (vec!["c".to_owned()], None));
        let none = page(names(), &asked("n=0")).unwrap();
        assert_eq!((none.names.len(), none.next), (0, None));
        assert_eq!(page(names(), &asked("")).unwrap().names.len(), 3);
        assert!(page(names(), &asked("n=x")).is_err());
        assert!(page(names(), &asked("n=-1")).is_err());
        assert_eq!(page(names(), &asked("last=zzz")).unwrap().names.len(), 0);
    }
}
