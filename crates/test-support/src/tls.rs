//! TLS and HTTP/2 clients, and the certificates of both sides.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A CA.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Issues a certificate for server `localhost` and for a client with this common name.
    pub fn issue(&self, name: &str) -> Pair {
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue_for(name, &["localhost"], &[], &usages)
    }

    /// Issues a certificate with these names and extended key usages.
    pub fn issue_for(
        &self,
        common: &str,
        dns: &[&str],
        uris: &[&str],
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Pair {
        let key = KeyPair::generate().unwrap();
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.extended_key_usages = usages.to_vec();
        params.distinguished_name.push(DnType::CommonName, common);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// Performs a TLS handshake that trusts `authority` and presents `own`. `versions` are the ALPN protocols.
pub async fn greet(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&Pair>,
    versions: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = versions
        .iter()
        .map(|version| version.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

/// The serial number of the server's certificate, as hexadecimal digits.
pub fn serial(stream: &TlsStream<TcpStream>) -> String {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    certificate.raw_serial_as_string()
}

/// Sends one request over HTTP/1.1.
pub async fn ask_http1<T>(stream: T, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    whole(sender.send_request(request).await?).await
}

/// Sends requests concurrently over one HTTP/2 connection.
pub async fn ask_http2<T>(
    stream: T,
    requests: Vec<Request<Full<Bytes>>>,
) -> Result<Vec<Response<Bytes>>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let asked = requests.into_iter().map(|request| {
        let mut sender = sender.clone();
        async move { whole(sender.send_request(request).await?).await }
    });
    futures_util::future::try_join_all(asked).await
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Response<Bytes>, hyper::Error> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}
