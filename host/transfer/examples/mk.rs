#![allow(missing_docs, clippy::unwrap_used)]
use std::io::Read;
fn main() {
    let mut p = Vec::new();
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .take(512 << 20)
        .read_to_end(&mut p)
        .unwrap();
    let k = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let t = minisign::sign(
        Some(&k.pk),
        &k.sk,
        std::io::Cursor::new(&p),
        Some("version=1"),
        None,
    )
    .unwrap()
    .into_string();
    let h = otahost_transfer::header::assemble(&t).unwrap();
    std::fs::write("/tmp/rate.img", [&h[..], &p].concat()).unwrap();
    println!("{}", k.pk.to_base64());
}
