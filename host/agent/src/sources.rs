//! Where artifacts, and the signatures beside them, come from on a real device: over HTTP within the grants, or from a file the
//! operator named.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otahost_core::grants::{Grants, url_within};
use otahost_core::model::{ArtifactSource, Install};
use otahost_core::paths;
use otahost_disk::Seam;
use otahost_links::ftps::{FtpsBody, FtpsError, FtpsLink};
use otahost_links::http::{HttpBody, HttpError, HttpOptions, HttpSource, Reach};
use otahost_links::http_client::HttpClient;
use otahost_transfer::{
    Body, BoxFuture, Digest, Opened, SIDECAR_MAX, Source, SourceError, Validator,
};
use tokio::time::timeout;
use url::Url;

use crate::platform::Sources;

/// Piece read from a file at once.
const PIECE: usize = 256 * 1024;

/// Largest file with a digest.
const MAX_DIGEST_FILE: usize = 1024;

/// What a signature has behind the name of the file it lies beside.
const SIDECAR: &str = ".minisig";

/// The real sources.
#[derive(Debug)]
pub struct RealSources {
    /// An attempt ends when no byte came for so long.
    pub idle_timeout: Duration,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Links that give files.
    pub links: BTreeMap<String, Files>,
}

/// A link that gives files.
#[derive(Debug, Clone)]
pub enum Files {
    /// Over FTPS.
    Ftps(Arc<FtpsLink>),
    /// Over HTTP, with the link's credentials.
    Http(HttpClient),
}

impl Sources for RealSources {
    fn source(&self, install: &Install, grants: &Grants) -> Result<Arc<dyn Source>, SourceError> {
        let downloads = &grants.download;
        match &install.artifact.source {
            ArtifactSource::File(path) => Ok(Arc::new(FileSource { path: path.into() })),
            ArtifactSource::OnLink(place) => {
                // The grants may have changed since the plan was admitted.
                if !grants.allows_file(place) {
                    return Err(SourceError::Forbidden(format!(
                        "{} on link `{link}` is outside what grants.links.{link}.files allows",
                        paths::without_query(&place.path),
                        link = place.link
                    )));
                }
                let path = place.path.clone();
                match self.links.get(&place.link).cloned() {
                    Some(Files::Ftps(link)) => Ok(Arc::new(OnFtps { link, path })),
                    Some(Files::Http(link)) => Ok(Arc::new(OnApi { link, path })),
                    None => Err(SourceError::Forbidden(format!(
                        "link `{}` gives no files",
                        place.link
                    ))),
                }
            }
            source @ ArtifactSource::Url(text) => {
                let url = Url::parse(text)
                    .map_err(|e| SourceError::Forbidden(format!("{source} is no URL: {e}")))?;
                // The grants may have changed since the plan was admitted.
                if !downloads.iter().any(|prefix| url_within(prefix, text)) {
                    return Err(SourceError::Forbidden(format!(
                        "{source} is outside what grants.download allows"
                    )));
                }
                let granted = downloads.clone();
                // A redirect may lead out of the grant (object storage does that), but not into anybody's own network.
                let allow = Arc::new(move |url: &Url| {
                    let named = granted
                        .iter()
                        .any(|prefix| url_within(prefix, url.as_str()));
                    Ok(if named {
                        Reach::Named
                    } else {
                        Reach::PublicOnly
                    })
                });
                let mut options = HttpOptions::new(url, allow);
                options.idle_timeout = self.idle_timeout;
                options.connect_timeout = self.connect_timeout;
                Ok(Arc::new(Http {
                    source: HttpSource::new(options.clone()).map_err(from_http)?,
                    options,
                    downloads: downloads.clone(),
                }))
            }
        }
    }
}

#[derive(Debug)]
struct Http {
    source: HttpSource,
    options: HttpOptions,
    downloads: Vec<String>,
}

impl Source for Http {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let opened = self
                .source
                .open(from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_http)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
                published: Vec::new(),
                guessed: false,
                body: Box::new(HttpPieces(opened.body)),
            })
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(async move {
            let mut url = self.options.url.clone();
            // The query stays: it may be what opens the door.
            url.set_path(&format!("{}{SIDECAR}", url.path()));
            let shown = ArtifactSource::Url(url.to_string());
            if !self.downloads.iter().any(|p| url_within(p, url.as_str())) {
                return Err(SourceError::Forbidden(format!(
                    "the file has no signed header, and {shown} is outside what grants.download allows"
                )));
            }
            let mut options = self.options.clone();
            options.url = url;
            let source = HttpSource::new(options).map_err(from_http)?;
            let mut body = match source.open(0, None).await {
                // Object storage that may not be listed answers 403 for what is not there.
                Err(HttpError::Status {
                    status: 403 | 404, ..
                }) => return Ok(None),
                opened => opened.map_err(from_http)?.body,
            };
            let mut bytes = Vec::new();
            let whole = async {
                while bytes.len() <= SIDECAR_MAX
                    && let Some(piece) = body.next().await.map_err(from_http)?
                {
                    let room = SIDECAR_MAX + 1 - bytes.len();
                    bytes.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                Ok(())
            };
            // So little comes in that time, or it is being dripped.
            timeout(self.options.idle_timeout, whole)
                .await
                .unwrap_or_else(|_| {
                    Err(SourceError::Stalled(format!(
                        "{shown}: it comes too slowly"
                    )))
                })?;
            Ok(Some(text(&bytes)))
        })
    }
}

/// What is not UTF-8 is no signature, and is refused by whoever reads it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Debug)]
struct HttpPieces(HttpBody);

impl Body for HttpPieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move { self.0.next().await.map_err(from_http) })
    }
}

fn from_http(error: HttpError) -> SourceError {
    match error {
        HttpError::Status {
            status,
            headers,
            body,
            text,
        } => SourceError::Status {
            status,
            headers,
            body,
            text,
        },
        HttpError::Broken(text) => SourceError::Broken(text),
        HttpError::Stalled(text) => SourceError::Stalled(text),
        HttpError::Forbidden(text) => SourceError::Forbidden(text),
    }
}

/// A file on an FTPS server.
#[derive(Debug)]
struct OnFtps {
    link: Arc<FtpsLink>,
    path: String,
}

impl Source for OnFtps {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let published = self.published().await?;
            let opened = self
                .link
                .open(&self.path, from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_ftps)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
                published,
                guessed: false,
                body: Box::new(FtpsPieces(opened.body)),
            })
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(async move {
            let name = format!("{}{SIDECAR}", self.path);
            let bytes = self.link.small_file(&name, SIDECAR_MAX + 1).await;
            Ok(bytes.map_err(from_ftps)?.map(|bytes| text(&bytes)))
        })
    }
}

impl OnFtps {
    /// The digests that lie beside the file, as `sha256sum` and `md5sum` write them.
    async fn published(&self) -> Result<Vec<Digest>, SourceError> {
        let mut published = Vec::new();
        for algorithm in ["sha256", "md5"] {
            let name = format!("{}.{algorithm}", self.path);
            let Some(bytes) = self
                .link
                .small_file(&name, MAX_DIGEST_FILE)
                .await
                .map_err(from_ftps)?
            else {
                continue;
            };
            let text = text(&bytes);
            let word = text.split_whitespace().next().unwrap_or_default();
            let word = word.trim_start_matches('\\');
            // One that is there has to be right: an image beside a broken digest is suspect.
            let digest = Digest::parse(&format!("{algorithm}:{word}"))
                .map_err(|e| SourceError::Forbidden(format!("the file {name}: {e}")))?;
            published.push(digest);
        }
        Ok(published)
    }
}

#[derive(Debug)]
struct FtpsPieces(FtpsBody);

impl Body for FtpsPieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move { self.0.next().await.map_err(from_ftps) })
    }
}

fn from_ftps(error: FtpsError) -> SourceError {
    match error {
        FtpsError::Broken(text) | FtpsError::Unreachable(text) => SourceError::Broken(text),
        FtpsError::Stalled(text) => SourceError::Stalled(text),
        error => SourceError::Forbidden(error.to_string()),
    }
}

/// A path of an API: asked with the link's credentials, which stay behind when it redirects.
#[derive(Debug)]
struct OnApi {
    link: HttpClient,
    path: String,
}

impl Source for OnApi {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let opened = self
                .link
                .open(&self.path, from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_http)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
                published: opened.md5.map(Digest::Md5).into_iter().collect(),
                guessed: true,
                body: Box::new(HttpPieces(opened.body)),
            })
        })
    }
}

/// A file of the operator's. It is only read.
#[derive(Debug)]
struct FileSource {
    path: PathBuf,
}

fn broken(path: &Path, error: &std::io::Error) -> SourceError {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            SourceError::Forbidden(format!("cannot read {}: {error}", path.display()))
        }
        _ => SourceError::Broken(format!("cannot read {}: {error}", path.display())),
    }
}

impl Source for FileSource {
    fn open<'a>(
        &'a self,
        from: u64,
        _validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let path = self.path.clone();
            Seam::Threads
                .run(move || {
                    let fault = |e: std::io::Error| broken(&path, &e);
                    let file = File::open(&path).map_err(fault)?;
                    let metadata = file.metadata().map_err(fault)?;
                    if !metadata.is_file() {
                        return Err(SourceError::Forbidden(format!(
                            "{} is not a file",
                            path.display()
                        )));
                    }
                    let total = metadata.len();
                    let offset = from.min(total);
                    let validator = Some(Validator(format!(
                        "{total} {} {}",
                        metadata.mtime(),
                        metadata.mtime_nsec()
                    )));
                    let body = Box::new(FilePieces {
                        file: Arc::new(file),
                        path,
                        offset,
                    });
                    Ok(Opened {
                        offset,
                        total: Some(total),
                        validator,
                        published: Vec::new(),
                        guessed: false,
                        body,
                    })
                })
                .await
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(async move {
            let mut path = self.path.clone().into_os_string();
            path.push(SIDECAR);
            let path = PathBuf::from(path);
            Seam::Threads
                .run(move || {
                    let fault = |e: std::io::Error| broken(&path, &e);
                    match std::fs::metadata(&path) {
                        Ok(metadata) if metadata.is_file() => {}
                        Ok(_) => {
                            return Err(SourceError::Forbidden(format!(
                                "{} is not a file",
                                path.display()
                            )));
                        }
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                        Err(e) => return Err(fault(e)),
                    }
                    let mut bytes = Vec::new();
                    File::open(&path)
                        .and_then(|file| file.take(SIDECAR_MAX as u64 + 1).read_to_end(&mut bytes))
                        .map_err(fault)?;
                    Ok(Some(text(&bytes)))
                })
                .await
        })
    }
}

#[derive(Debug)]
struct FilePieces {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
}

impl Body for FilePieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            let (file, path, offset) = (self.file.clone(), self.path.clone(), self.offset);
            let piece = Seam::Threads
                .run(move || {
                    let mut piece = vec![0; PIECE];
                    let read = file
                        .read_at(&mut piece, offset)
                        .map_err(|e| broken(&path, &e))?;
                    piece.truncate(read);
                    Ok::<_, SourceError>(piece)
                })
                .await?;
            self.offset += piece.len() as u64;
            Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Mutex;

    use otahost_core::model::Artifact;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Reads a request; gives the path and query it names.
    async fn target_of(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        let head = String::from_utf8_lossy(&head);
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Answers every request with `answer` of its target, and remembers the targets.
    async fn server(
        answer: impl Fn(&str) -> Vec<u8> + Send + 'static,
    ) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let target = target_of(&mut stream).await;
                let answer = answer(&target);
                noted.lock().unwrap().push(target);
                let _ = stream.write_all(&answer).await;
            }
        });
        (port, asked)
    }

    fn answer(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    /// A source as the engine asks for it.
    fn open(source: ArtifactSource, downloads: &[String], idle: Duration) -> Arc<dyn Source> {
        let grants = Grants {
            download: downloads.to_vec(),
            ..Grants::default()
        };
        let install = Install {
            target: "dock".into(),
            artifact: Artifact {
                source,
                size: None,
                digests: Vec::new(),
                identity: None,
            },
            version: "2.0".into(),
        };
        let sources = RealSources {
            idle_timeout: idle,
            connect_timeout: LONG,
            links: BTreeMap::new(),
        };
        sources.source(&install, &grants).unwrap()
    }

    /// Longer than anything takes here.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_signature_beside_a_url_is_under_its_path_with_its_query() {
        let (port, asked) = server(|_| answer("200 OK", b"untrusted comment: x\n")).await;
        let granted = [format!("http://127.0.0.1:{port}/fw")];
        for (url, wanted) in [
            ("/fw/app.bin", "/fw/app.bin.minisig"),
            ("/fw/app.bin?sig=a%2Fb&x", "/fw/app.bin.minisig?sig=a%2Fb&x"),
            ("/fw/a%20b.bin#part", "/fw/a%20b.bin.minisig"),
        ] {
            let url = ArtifactSource::Url(format!("http://127.0.0.1:{port}{url}"));
            let text = open(url, &granted, LONG).sidecar().await.unwrap();
            assert_eq!(text.as_deref(), Some("untrusted comment: x\n"));
            assert_eq!(asked.lock().unwrap().pop().as_deref(), Some(wanted));
        }
    }

    #[tokio::test]
    async fn a_server_without_a_signature_is_told_from_one_that_fails() {
        for (status, there) in [
            ("404 Not Found", true),
            ("403 Forbidden", true),
            ("401 Unauthorized", false),
            ("500 Internal Server Error", false),
            ("503 Service Unavailable", false),
        ] {
            let (port, _) = server(move |_| answer(status, b"why")).await;
            let url = format!("http://127.0.0.1:{port}/fw/app.bin?secret=1");
            let source = open(
                ArtifactSource::Url(url),
                &[format!("http://127.0.0.1:{port}/")],
                LONG,
            );
            match source.sidecar().await {
                Ok(None) => assert!(there, "{status}"),
                Err(SourceError::Status { text, .. }) => {
                    assert!(!there, "{status}");
                    assert!(
                        text.contains("/fw/app.bin.minisig") && !text.contains("secret"),
                        "{text}"
                    );
                }
                other => panic!("{status}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_signature_outside_the_grant_is_not_asked_for() {
        let (port, asked) = server(|_| answer("200 OK", b"")).await;
        let file = format!("http://127.0.0.1:{port}/fw/app.bin");
        let source = open(
            ArtifactSource::Url(format!("{file}?secret=1")),
            std::slice::from_ref(&file),
            LONG,
        );
        let Err(SourceError::Forbidden(text)) = source.sidecar().await else {
            panic!("it was asked for")
        };
        assert!(
            text.contains("grants.download") && !text.contains("secret"),
            "{text}"
        );
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_signature_is_not_followed_into_somebodys_own_network() {
        let (inner, asked) = server(|_| answer("200 OK", b"")).await;
        let (port, _) = server(move |_| {
            format!(
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{inner}/\r\nContent-Length: 0\r\n\r\n"
            )
            .into_bytes()
        })
        .await;
        let source = open(
            ArtifactSource::Url(format!("http://127.0.0.1:{port}/app.bin")),
            &[format!("http://127.0.0.1:{port}/")],
            LONG,
        );
        let outcome = source.sidecar().await;
        assert!(
            matches!(outcome, Err(SourceError::Forbidden(_))),
            "{outcome:?}"
        );
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn of_a_large_signature_no_more_is_kept_than_shows_that_it_is_too_large() {
        let (port, _) = server(|_| answer("200 OK", &[b'x'; 300_000])).await;
        let granted = [format!("http://127.0.0.1:{port}/")];
        let url = ArtifactSource::Url(format!("http://127.0.0.1:{port}/app.bin"));
        let text = open(url, &granted, LONG).sidecar().await.unwrap();
        assert_eq!(text.map(|text| text.len()), Some(SIDECAR_MAX + 1));

        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.bin.minisig"), [b'x'; 300_000]).unwrap();
        let file = ArtifactSource::File(dir.path().join("app.bin").display().to_string());
        let text = open(file, &[], LONG).sidecar().await.unwrap();
        assert_eq!(text.map(|text| text.len()), Some(SIDECAR_MAX + 1));
    }

    #[tokio::test]
    async fn a_signature_that_drips_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            target_of(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
                .await;
            // Never silent for as long as the idle time-out, and far from its end when it goes away.
            for _ in 0..100 {
                if stream.write_all(b"x").await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let source = open(
            ArtifactSource::Url(format!("http://127.0.0.1:{port}/app.bin")),
            &[format!("http://127.0.0.1:{port}/")],
            Duration::from_millis(200),
        );
        let outcome = source.sidecar().await;
        assert!(
            matches!(outcome, Err(SourceError::Stalled(_))),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn the_signature_beside_a_file_bears_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let sidecar = async |name: &str| {
            let file = ArtifactSource::File(path(name).display().to_string());
            open(file, &[], LONG).sidecar().await
        };
        std::fs::write(path("app.bin"), "payload").unwrap();
        assert_eq!(sidecar("app.bin").await, Ok(None));
        std::fs::write(path("app.bin.minisig"), b"sig\xff").unwrap();
        assert_eq!(sidecar("app.bin").await, Ok(Some("sig\u{fffd}".into())));
        std::fs::create_dir(path("other.minisig")).unwrap();
        let outcome = sidecar("other").await;
        assert!(
            matches!(&outcome, Err(SourceError::Forbidden(text)) if text.contains("is not a file")),
            "{outcome:?}"
        );
    }
}
