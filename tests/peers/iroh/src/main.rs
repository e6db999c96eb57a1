//! One end of an iroh-blobs transfer, driven by lines on standard input and output, for the benchmarks.
//!
//! ```text
//! iroh-peer provide FILE FOLDER HOST:PORT                        says `ready HASH ID`, serves until its input ends
//! iroh-peer fetch HASH SIZE FOLDER HOST:PORT ID@HOST:PORT…       connects, says `ready`, waits for a line, fetches, says `done`
//! ```
//!
//! No relay, no look-ups, no port mapping: peers are reached at the addresses given. A fetch from several providers uses
//! the library's own downloader with its own splitting: the blob is asked for in parts of [`PART`] bytes, of which the
//! library keeps 32 under way, each from a provider that it draws at random. A fetch from one provider asks for the whole.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, bail};
use iroh::address_lookup::memory::MemoryLookup;
use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode};
use iroh_blobs::api::blobs::{AddPathOptions, ImportMode};
use iroh_blobs::api::downloader::{DownloadOptions, Shuffled, SplitStrategy};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt as _, ChunkRangesSeq, GetManyRequest};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::{BlobFormat, BlobsProtocol, Hash};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, stdin};

/// Bytes of one part: a multiple of the library's groups of 16 KiB, and small beside what one provider sends in all.
const PART: u64 = 2 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["provide", file, folder, listen] => provide(file, folder, listen).await,
        ["fetch", hash, size, folder, listen, providers @ ..] => {
            fetch(hash.parse()?, size.parse()?, folder, listen, providers).await
        }
        _ => bail!(
            "usage: iroh-peer provide FILE FOLDER HOST:PORT | fetch HASH SIZE FOLDER HOST:PORT ID@HOST:PORT..."
        ),
    }
}

async fn endpoint(listen: &str, known: MemoryLookup) -> Result<Endpoint> {
    let address: SocketAddr = listen.parse()?;
    let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled).clear_ip_transports();
    Ok(builder.bind_addr(address)?.address_lookup(known).bind().await?)
}

async fn provide(file: &str, folder: &str, listen: &str) -> Result<()> {
    let store = FsStore::load(folder).await?;
    let options =
        AddPathOptions { path: file.into(), format: BlobFormat::Raw, mode: ImportMode::TryReference };
    let tag = store.blobs().add_path_with_opts(options).await?;
    let endpoint = endpoint(listen, MemoryLookup::new()).await?;
    let router = iroh::protocol::Router::builder(endpoint.clone())
        .accept(iroh_blobs::ALPN, BlobsProtocol::new(&store, None))
        .spawn();
    println!("ready {} {}", tag.hash, endpoint.id());
    stdin().read_to_end(&mut Vec::new()).await?;
    router.shutdown().await?;
    Ok(())
}

async fn fetch(hash: Hash, size: u64, folder: &str, listen: &str, providers: &[&str]) -> Result<()> {
    let known = MemoryLookup::new();
    let mut ids: Vec<EndpointId> = Vec::new();
    for provider in providers {
        let (id, address) = provider.split_once('@').context("a provider is ID@HOST:PORT")?;
        let id: EndpointId = id.parse()?;
        known.add_endpoint_info(EndpointAddr::new(id).with_ip_addr(address.parse()?));
        ids.push(id);
    }
    let store = FsStore::load(folder).await?;
    let endpoint = endpoint(listen, known).await?;
    let downloader = store.downloader(&endpoint);
    println!("ready");
    let mut line = String::new();
    BufReader::new(stdin()).read_line(&mut line).await?;
    match ids.as_slice() {
        [one] => downloader.download(hash, Some(*one)).await.map_err(|error| anyhow!("{error:#}"))?,
        _ => {
            let starts = (0..size).step_by(PART as usize);
            let parts: Vec<ChunkRanges> =
                starts.map(|at| ChunkRanges::bytes(at..(at + PART).min(size))).collect();
            let hashes = vec![hash; parts.len()];
            let request = GetManyRequest::new(hashes, ChunkRangesSeq::from_ranges(parts));
            let providers = Shuffled::new(ids);
            let options = DownloadOptions::new(request, providers, SplitStrategy::Split);
            downloader.download_with_opts(options).await.map_err(|error| anyhow!("{error:#}"))?;
        }
    }
    let status = store.blobs().status(hash).await?;
    match status {
        iroh_blobs::api::proto::BlobStatus::Complete { size: whole } if whole == size => {}
        other => bail!("the blob is not whole: {other:?}"),
    }
    println!("done");
    endpoint.close().await;
    Ok(())
}
