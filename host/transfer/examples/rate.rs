#![allow(missing_docs, clippy::unwrap_used)]
use bytes::BytesMut;
use otahost_disk::Seam;
use otahost_transfer::*;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;
#[derive(Debug)]
struct File(std::fs::File);
impl Stage for File {
    fn capacity(&self) -> Option<u64> {
        None
    }
    fn write_at(&self, b: &[u8], o: u64) -> Result<(), StageError> {
        self.0.write_all_at(b, o).unwrap();
        Ok(())
    }
    fn read_exact_at(&self, b: &mut [u8], o: u64) -> Result<(), StageError> {
        self.0.read_exact_at(b, o).unwrap();
        Ok(())
    }
    fn sync(&self) -> Result<(), StageError> {
        self.0.sync_all().unwrap();
        Ok(())
    }
}
#[derive(Debug)]
struct Src(std::net::SocketAddr, u64);
#[derive(Debug)]
struct B(tokio::net::TcpStream, u64, BytesMut);
impl Source for Src {
    fn open<'a>(
        &'a self,
        _f: u64,
        _v: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            use tokio::io::AsyncWriteExt;
            let mut s = tokio::net::TcpStream::connect(self.0).await.unwrap();
            s.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            // header of fixed length
            use tokio::io::AsyncReadExt;
            let mut h = Vec::new();
            while !h.ends_with(b"\r\n\r\n") {
                let mut b = [0; 1];
                s.read_exact(&mut b).await.unwrap();
                h.push(b[0]);
            }
            Ok(Opened {
                offset: 0,
                total: Some(self.1),
                validator: None,
                body: Box::new(B(s, self.1, BytesMut::new())),
            })
        })
    }
}
impl Body for B {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<bytes::Bytes>, SourceError>> {
        Box::pin(async move {
            use tokio::io::AsyncReadExt;
            self.2.reserve(64 * 1024);
            let n = self.0.read_buf(&mut self.2).await.unwrap();
            Ok(if n == 0 {
                None
            } else {
                Some(self.2.split().freeze())
            })
        })
    }
}
struct Sink;
impl Checkpoints for Sink {
    fn progress(&self, _: u64, _: Option<u64>) {}
    fn checkpoint(&self, _: Checkpoint) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (path, keys, out) = (args[1].clone(), args[2].clone(), args[3].clone());
    let md5 = args[4].clone();
    let size = std::fs::metadata(&path).unwrap().len();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    println!("{addr}");
    let p = path.clone();
    std::thread::spawn(move || {
        for c in server.incoming() {
            let mut c = c.unwrap();
            let mut b = [0; 512];
            c.read(&mut b).unwrap();
            let mut f = std::fs::File::open(&p).unwrap();
            write!(c, "HTTP/1.0 200 OK\r\nContent-Length: {size}\r\n\r\n").unwrap();
            std::io::copy(&mut f, &mut c).ok();
        }
    });
    if args.get(5).is_some() {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    let trust = if keys == "unsigned" {
        Trust::Unsigned
    } else {
        Trust::Minisign(TrustKeys::parse(&[keys]).unwrap())
    };
    let digests = md5
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|d| Digest::parse(d).unwrap())
        .collect();
    let r = Request {
        expected_size: Some(size),
        digests,
        trust,
        max_size: 1 << 40,
        version: None,
        tuning: Tuning::default(),
    };
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..3 {
        let f = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&out)
            .unwrap();
        let t = Instant::now();
        let v = rt
            .block_on(attempt(
                &Src(addr, size),
                Arc::new(File(f)),
                &r,
                Checkpoint::default(),
                &Sink,
                Seam::Threads,
            ))
            .unwrap();
        println!("{:?} {}", t.elapsed(), v.payload_sha256);
    }
    let st = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", st.lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
