//! TLS 1.3 as libp2p's specification has it (<https://github.com/libp2p/specs/blob/master/tls/tls.md>), with AES-256 preferred
//! to ChaCha20 and without a log of keys.
//!
//! `libp2p-tls` makes the certificates and checks them; only the configuration is ours. Its own prefers ChaCha20, which
//! costs three times the processor time of AES on servers, and writes session keys to the file that the environment variable
//! `SSLKEYLOGFILE` names, which no operator of such a node wants by accident.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::CryptoProvider;
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use futures_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use futures_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, version,
};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::tls::{certificate, make_client_config, make_server_config};

/// Bytes read from the socket at a time. rustls asks for 4 KiB, which would be four system calls for each of its records.
const READ_BUFFER: usize = 128 * 1024;
/// Encrypted bytes that wait for the socket: as much as goes in one system call.
const WRITE_BUFFER: usize = 256 * 1024;
/// What peers of other implementations offer in the handshake.
const ALPN: &[u8] = b"libp2p";

/// Proves who both ends are; a connection that comes out is encrypted.
#[derive(Debug, Clone)]
pub(super) struct Config {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Config {
    /// A certificate of its own for the node's key.
    pub(super) fn new(keypair: &Keypair) -> io::Result<Self> {
        let (base_server, base_client) = (
            make_server_config(keypair).map_err(io::Error::other)?,
            make_client_config(keypair, None).map_err(io::Error::other)?,
        );
        let provider = Arc::new(provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(Verifier))
            .with_cert_resolver(base_server.cert_resolver);
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A client that prefers ChaCha20 takes AES all the same where both have it.
        server.ignore_client_order = true;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier))
            .with_client_cert_resolver(base_client.client_auth_cert_resolver);
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// The suites that libp2p allows, the one that servers compute fastest first.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    provider
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/tls/1.0.0")
    }
}

type Secured<C> = (PeerId, TlsStream<BufReader<C>>);

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<C>>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let socket = BufReader::with_capacity(READ_BUFFER, socket);
            let mut stream = TlsAcceptor::from(self.server).accept(socket).await?;
            stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER));
            let peer = peer_of(stream.get_ref().1.peer_certificates())?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<C>>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // No server name is sent: the specification forbids it, and an address leaves it out.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
            let socket = BufReader::with_capacity(READ_BUFFER, socket);
            let mut stream = TlsConnector::from(self.client).connect(name, socket).await?;
            stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER));
            let peer = peer_of(stream.get_ref().1.peer_certificates())?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }
}

fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> io::Result<PeerId> {
    match certificates {
        Some([one]) => Ok(certificate::parse(one).map_err(io::Error::other)?.peer_id()),
        _ => Err(io::Error::other("the peer showed no certificate, or more than one")),
    }
}

/// Exactly one self-signed certificate with libp2p's extension, of whatever peer: the transport compares the identifier
/// with the one that was dialled.
#[derive(Debug)]
struct Verifier;

fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
    if !others.is_empty() {
        return Err(Error::General("libp2p's TLS takes exactly one certificate".to_owned()));
    }
    certificate::parse(certificate)?;
    Ok(())
}

fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// TLS 1.2 is not offered, so nobody can sign for it.
fn too_old() -> Error {
    Error::General("TLS 1.2 is not spoken".to_owned())
}

/// What `libp2p-tls` can verify.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA256,
    ]
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
