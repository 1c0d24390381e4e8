//! What an answer of the API means: one total function over routes, statuses and sentences.
//!
//! The sentence decides only where the vendor's page says so: it may come in another language, from a gateway, or not at all. In
//! doubt it is tried again later, and nothing is ever tried again at once but a request that was refused for its token, once.

/// Which question was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `firmware/latest`.
    Latest,
    /// `firmware/file`: the API itself, or the object store it sends on to.
    File,
    /// `firmware/update-result`.
    UpdateResult,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It was done; the body says what.
    Fine,
    /// The cloud has no firmware for this device.
    Nothing,
    /// The token is refused: new ones, then once more.
    Token,
    /// The cloud does not know this device, account or address as configured.
    Configuration,
    /// This firmware does not belong to this device.
    Mismatch,
    /// Again later.
    Later,
    /// Asking again does not help.
    Stop,
}

/// The meaning of a status with this sentence in its body, if it has one.
pub fn meaning(route: Route, status: u16, detail: Option<&str>) -> Meaning {
    let says = |sentence: &str| {
        detail.is_some_and(|d| d.trim_end_matches('.').eq_ignore_ascii_case(sentence))
    };
    match status {
        200..=299 => Meaning::Fine,
        400 if route == Route::UpdateResult && says("Firmware not matched with device") => {
            Meaning::Mismatch
        }
        401 if says("Token is expired") || says("Could not validate credentials") => Meaning::Token,
        401 if says("Not authorized user") => Meaning::Configuration,
        // The page's note on this one: the server's own credentials, not ours. New tokens would change nothing.
        401 if says("No credentials") => Meaning::Later,
        // In words we do not know it still is about the token, but where the object store may speak.
        401 if route == Route::File => Meaning::Later,
        401 => Meaning::Token,
        403 if route == Route::File && detail.is_none() => Meaning::Later,
        403 => Meaning::Configuration,
        404 if route == Route::Latest && says("Firmware not found") => Meaning::Nothing,
        404 if route == Route::File && !says("Resource not found") && !says("Device not found") => {
            Meaning::Stop
        }
        404 => Meaning::Configuration,
        // Redirects too: the API itself sends on nobody but for a file, a hotel's portal does.
        408 | 425 | 429 | 0..=199 | 300..=399 | 500.. => Meaning::Later,
        400..=499 => Meaning::Stop,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::Value;

    const ALL: [Route; 3] = [Route::Latest, Route::File, Route::UpdateResult];

    #[test]
    fn every_line_of_the_pages_error_tables_has_its_meaning() {
        let table: Vec<Value> =
            serde_json::from_str(include_str!("../fixtures/withnox_ota_error_table.json")).unwrap();
        let expected = [
            Meaning::Configuration,
            Meaning::Configuration,
            Meaning::Configuration,
            Meaning::Nothing,
            Meaning::Stop,
            Meaning::Later,
            Meaning::Stop,
            Meaning::Later,
            Meaning::Mismatch,
            Meaning::Token,
            Meaning::Token,
            Meaning::Configuration,
            Meaning::Later,
        ];
        assert_eq!(table.len(), expected.len());
        for (line, expected) in table.iter().zip(expected) {
            let routes = match line["endpoint"].as_str().unwrap() {
                "latest" => &ALL[..1],
                "file" => &ALL[1..2],
                "update-result" => &ALL[2..],
                _ => &ALL[..],
            };
            for route in routes {
                let status = u16::try_from(line["http"].as_u64().unwrap()).unwrap();
                let found = meaning(*route, status, line["detail"].as_str());
                assert_eq!(found, expected, "{route:?} {line}");
            }
        }
    }

    #[test]
    fn without_a_sentence_the_status_decides() {
        for route in ALL {
            for (status, expected) in [
                (200, Meaning::Fine),
                (204, Meaning::Fine),
                (302, Meaning::Later),
                (400, Meaning::Stop),
                (408, Meaning::Later),
                (409, Meaning::Stop),
                (422, Meaning::Stop),
                (429, Meaning::Later),
                (500, Meaning::Later),
                (502, Meaning::Later),
                (599, Meaning::Later),
                (999, Meaning::Later),
                (0, Meaning::Later),
            ] {
                assert_eq!(meaning(route, status, None), expected, "{route:?} {status}");
            }
        }
        assert_eq!(meaning(Route::Latest, 401, None), Meaning::Token);
        assert_eq!(
            meaning(Route::UpdateResult, 401, Some("토큰이 만료되었습니다")),
            Meaning::Token
        );
        assert_eq!(meaning(Route::File, 401, None), Meaning::Later);
        assert_eq!(meaning(Route::Latest, 404, None), Meaning::Configuration);
        assert_eq!(meaning(Route::File, 404, None), Meaning::Stop);
        assert_eq!(meaning(Route::File, 403, None), Meaning::Later);
        assert_eq!(
            meaning(Route::File, 403, Some("Permission denied")),
            Meaning::Configuration
        );
    }

    #[test]
    fn no_status_but_401_ever_asks_for_tokens() {
        for route in ALL {
            for status in (0..=1_000).filter(|s| *s != 401) {
                for detail in [None, Some("Token is expired")] {
                    assert_ne!(meaning(route, status, detail), Meaning::Token, "{status}");
                }
            }
        }
    }
}
