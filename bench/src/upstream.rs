//! The upstream: a handler that speaks the contract, and WeChat's red packets over TLS. It accepts every
//! request at once and only counts them. It runs in its own thread.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use crate::wire::{Reader, between};

/// A running upstream. It ends with the process.
pub struct Upstream {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    paid: Arc<AtomicU64>,
}

impl Upstream {
    /// Starts the upstream, and writes `ca.pem` and the merchant's `cert.pem` and `key.pem` into `dir`.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let acceptor = acceptor(dir)?;
        let paid = Arc::new(AtomicU64::new(0));
        let (plain, tls) = (bind()?, bind()?);
        let upstream = Self {
            plain: plain.local_addr()?,
            tls: tls.local_addr()?,
            paid: Arc::clone(&paid),
        };
        std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                if let Ok(runtime) = runtime {
                    runtime.block_on(async {
                        tokio::join!(accept(plain, None, &paid), accept(tls, Some(acceptor), &paid))
                    });
                }
            })?;
        Ok(upstream)
    }

    /// The number of payments so far.
    pub fn paid(&self) -> u64 {
        self.paid.load(Ordering::Relaxed)
    }
}

fn bind() -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Makes a CA, and with it the upstream's certificate and the merchant's.
fn acceptor(dir: &Path) -> anyhow::Result<TlsAcceptor> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let issue = |name: &str| -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &ca)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let (merchant, merchant_key) = issue("1900000109")?;
    std::fs::write(dir.join("ca.pem"), ca.pem())?;
    std::fs::write(dir.join("cert.pem"), merchant)?;
    std::fs::write(dir.join("key.pem"), merchant_key)?;
    let (own, own_key) = issue("localhost")?;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes())?)?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.as_bytes())?],
            PrivateKeyDer::from_pem_slice(own_key.as_bytes())?,
        )
        .context("the stand-in's certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, paid: &Arc<AtomicU64>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, paid) = (tls.clone(), Arc::clone(paid));
        let _set = stream.set_nodelay(true);
        tokio::spawn(async move {
            // The subject reports a broken connection.
            let _ended = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, &paid).await,
                    Err(error) => Err(error),
                },
                None => serve(stream, &paid).await,
            };
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite, paid: &AtomicU64) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut requests = Reader::new(Box::pin(read));
    let mut write = Box::pin(&mut write);
    let mut answer = Vec::with_capacity(1024);
    while let Some((head, body)) = requests.next().await? {
        paid.fetch_add(1, Ordering::Relaxed);
        answer.clear();
        let text = answer_to(head, body);
        answer.extend_from_slice(
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                text.len()
            )
            .as_bytes(),
        );
        answer.extend_from_slice(&text);
        write.write_all(&answer).await?;
        write.flush().await?;
    }
    Ok(())
}

fn answer_to(head: &[u8], body: &[u8]) -> Vec<u8> {
    if head.starts_with(b"POST /mmpaymkttransfers/") {
        let order_no = between(body, b"<mch_billno>", b"</mch_billno>").unwrap_or_default();
        let order_no = between(order_no, b"<![CDATA[", b"]]>").unwrap_or(order_no);
        let order_no = String::from_utf8_lossy(order_no);
        return format!(
            "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg>\
             <result_code><![CDATA[SUCCESS]]></result_code><err_code><![CDATA[SUCCESS]]></err_code>\
             <mch_billno><![CDATA[{order_no}]]></mch_billno><mch_id><![CDATA[1900000109]]></mch_id>\
             <wxappid><![CDATA[wx8888888888888888]]></wxappid><total_amount>100</total_amount>\
             <send_listid><![CDATA[1000041701202611231830000001]]></send_listid></xml>"
        )
        .into_bytes();
    }
    if body.starts_with(b"<") {
        return b"<xml><returnCode>SUCCESS</returnCode><resultCode>SUCCESS</resultCode></xml>".to_vec();
    }
    br#"{"returnCode":"SUCCESS","returnMsg":"OK","resultCode":"SUCCESS","errCode":"SUCCESS"}"#.to_vec()
}
