//! One file a command.

pub(crate) mod attach;
pub(crate) mod attachments;
pub(crate) mod attest;
pub(crate) mod channel;
pub(crate) mod chat;
pub(crate) mod checkout;
pub(crate) mod completion;
pub(crate) mod conformance;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod evidence;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod have;
pub(crate) mod import;
pub(crate) mod import_from;
pub(crate) mod import_oms;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod login;
pub(crate) mod ls;
pub(crate) mod mirror;
pub(crate) mod node;
pub(crate) mod peers;
pub(crate) mod pin;
pub(crate) mod policy;
pub(crate) mod pools;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod recall;
pub(crate) mod root;
pub(crate) mod serve;
pub(crate) mod serve_key;
pub(crate) mod show;
pub(crate) mod sign;
mod staged;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod transfers;
pub(crate) mod trust;
pub(crate) mod verify;
pub(crate) mod workers;

use crate::args::{Command, EXIT_CODES};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(init) => init.run(context),
        Command::Node(node) => node.run(context).await,
        Command::Trust(trust) => trust.run(context).await,
        Command::Key(key) => key.run(context),
        Command::Root(root) => root.run(context).await,
        Command::Sign(sign) => sign.run(context).await,
        Command::Publish(publish) => publish.run(context).await,
        Command::Channel(channel) => channel.run(context).await,
        Command::Pull(pull) => pull.run(context).await,
        Command::Ls(ls) => ls.run(context).await,
        Command::Show(show) => show.run(context).await,
        Command::Verify(verify) => verify.run(context).await,
        Command::Serve(serve) => serve.run(context).await,
        Command::ServeKey(key) => key.run(context).await,
        Command::Workers(workers) => workers.run(context).await,
        Command::Pools(pools) => pools.run(context).await,
        Command::Chat(chat) => chat.run(context).await,
        Command::Attest(attest) => attest.run(context).await,
        Command::Policy(policy) => policy.run(context).await,
        Command::Recall(recall) => recall.run(context).await,
        Command::Pin(pin) => pin.run(context).await,
        Command::Unpin(unpin) => unpin.run(context).await,
        Command::Gc(gc) => gc.run(context).await,
        Command::Export(export) => export.run(context).await,
        Command::Checkout(checkout) => checkout.run(context).await,
        Command::Import(import) => import.run(context).await,
        Command::Have(have) => have.run(context).await,
        Command::Status(status) => status.run(context).await,
        Command::Peers(peers) => peers.run(context).await,
        Command::Transfers(transfers) => transfers.run(context).await,
        Command::Mirror(mirror) => mirror.run(context).await,
        Command::Token(token) => token.run(context).await,
        Command::Login(login) => login.run(context).await,
        Command::Limits(limits) => limits.run(context).await,
        Command::Log(log) => log.run(context).await,
        Command::Evidence(evidence) => evidence.run(context).await,
        Command::Doctor(doctor) => doctor.run(context).await,
        Command::Conformance(conformance) => conformance.run(context).await,
        Command::Demo(demo) => demo.run(context).await,
        Command::Completion(completion) => completion.run(),
        Command::ExitCodes => output::line(EXIT_CODES),
        // Taken care of before a runtime is made.
        Command::Worker | Command::VllmInit(_) => Ok(()),
    }
}
