//! Whatever strangers send, the listener lives, and the adapter hears of it only what is a request.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::support::{Answering, Listener, RIGHT, update, within};

/// Pieces that lead a parser astray more often than bytes drawn evenly.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "POST /api/updateDevice HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT kit:80 HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "GET http://kit/api/getDeviceInfo HTTP/1.1\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        RIGHT,
        "\r\n",
        "\n",
        "5\r\nhello\r\n",
        "FFFFFFFFFFFFFFFF1\r\n",
        "0\r\n\r\n",
        " ",
        ":",
        "%00",
    ]);
    prop_oneof![
        3 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..200),
    ]
}

struct Bench {
    runtime: Runtime,
    listener: Answering,
}

/// One listener for all cases: it has to live through them all.
static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(async {
        let listener = Listener::start(|options| options.limits.failures_per_minute = 0).await;
        listener.answer_all("")
    });
    Bench { runtime, listener }
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_end_the_listener(pieces in vec(piece(), 0..12)) {
        let Bench { runtime, listener } = &*BENCH;
        runtime.block_on(async {
            let mut stranger = listener.call().await;
            // It may be refused before all is written.
            let _ = within(stranger.0.write_all(&pieces.concat())).await;
            let _ = stranger.0.shutdown().await;
            stranger.closed().await;
            let mut platform = listener.call().await;
            let answer = platform.ask(update(RIGHT, "still here")).await;
            assert_eq!(answer.body, "still here");
        });
    }
}
