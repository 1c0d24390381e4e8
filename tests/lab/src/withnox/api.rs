//! The API's routes.

use std::net::TcpStream;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::book::Book;
use super::script::Scripted;
use super::wire::{self, Answer, Asked};
use super::{Call, Credential, DEVICE, Route, Shared, USER, lock};

/// Where all routes begin.
const API: &str = "/api/v1/addnox/";

/// One connection: one request.
pub(super) fn serve(shared: &Shared, mut stream: TcpStream) {
    let Ok(Some(asked)) = wire::read(&stream) else {
        return;
    };
    let (index, releases, call, answer, how) = shared.change(|book| {
        let route = route(&asked);
        let how = book
            .script
            .get_mut(&route)
            .and_then(|planned| planned.pop_front())
            .unwrap_or(Scripted::Pass);
        if how == Scripted::Expire {
            book.expire_access();
        }
        let credential = credential(book, route, &asked);
        if asked.query.is_some() {
            let why = format!("{} came with a query", asked.path);
            book.violations.push(why);
        }
        let answer = how
            .to_answer()
            .unwrap_or_else(|| act(book, route, credential, &asked));
        let call = Call {
            route,
            path: asked.path.clone(),
            credential,
            status: if how == Scripted::Lost {
                0
            } else {
                answer.status
            },
            said: said(&answer),
            answered: false,
        };
        book.calls.push(call.clone());
        (book.calls.len() - 1, book.releases, call, answer, how)
    });
    if let Some(callback) = lock(&shared.callback).as_mut() {
        callback(&call);
    }
    if how == Scripted::Hold {
        hold(shared, releases);
    }
    if how != Scripted::Lost && wire::write(&mut stream, &answer).is_ok() {
        shared.change(|book| book.calls[index].answered = true);
    }
}

/// Waits for a release after these, or the end. Who has seen that the request is here can release it, however far its answer is.
fn hold(shared: &Shared, releases: u64) {
    let book = shared.book();
    let held = |book: &mut Book| book.releases == releases && !book.stopped;
    drop(
        shared
            .changed
            .wait_while(book, held)
            .unwrap_or_else(PoisonError::into_inner),
    );
}

fn route(asked: &Asked) -> Route {
    let Some(rest) = asked.path.strip_prefix(API) else {
        return Route::Unknown;
    };
    let segments: Vec<&str> = rest.split('/').collect();
    match (asked.method.as_str(), segments.as_slice()) {
        ("POST", ["auth", "email", "signin"]) => Route::SignIn,
        ("POST", ["auth", "refresh-token"]) => Route::Refresh,
        ("GET", ["firmware", "latest", _, _]) => Route::Latest,
        ("GET", ["firmware", "file", _, _, _]) => Route::File,
        ("PATCH", ["firmware", "update-result", _, _, _]) => Route::UpdateResult,
        _ => Route::Unknown,
    }
}

fn credential(book: &Book, route: Route, asked: &Asked) -> Credential {
    match route {
        Route::SignIn => match form(&asked.body) {
            Some((username, password))
                if username == book.username && password == book.password =>
            {
                Credential::Good
            }
            Some(_) => Credential::Unknown,
            None => Credential::None,
        },
        Route::Refresh => match presented(&asked.body) {
            Some(token) => book.refresh_token(&token),
            None => Credential::None,
        },
        _ => {
            let header = asked.header("authorization");
            let token = header.map(|header| header.strip_prefix("Bearer ").unwrap_or_default());
            book.bearer(token)
        }
    }
}

/// Does what was asked, and answers as the vendor's page has it.
fn act(book: &mut Book, route: Route, credential: Credential, asked: &Asked) -> Answer {
    match route {
        Route::SignIn => match credential {
            Credential::Good => tokens(book),
            Credential::None => unreadable(),
            _ => error(400, "Incorrect password"),
        },
        Route::Refresh => match credential {
            Credential::Good => tokens(book),
            Credential::None => unreadable(),
            other => {
                if other == Credential::UsedUp {
                    let why = "a refresh token was used twice: the device is logged out";
                    book.violations.push(why.to_owned());
                }
                book.log_out();
                error(401, "Refresh token is not valid")
            }
        },
        Route::Unknown => error(404, "Not Found"),
        Route::Latest | Route::File | Route::UpdateResult => match credential {
            Credential::Good => firmware(book, route, &asked.path),
            Credential::None => error(401, "Not authenticated"),
            Credential::Expired => error(401, "Token is expired"),
            Credential::UsedUp | Credential::Unknown => {
                error(401, "Could not validate credentials")
            }
        },
    }
}

fn firmware(book: &mut Book, route: Route, path: &str) -> Answer {
    let mut numbers = path.rsplit('/').map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok);
    let user = next();
    let firmware = if route == Route::Latest {
        Some(0)
    } else {
        next()
    };
    let (Some(user), Some(id), Some(device)) = (user, firmware, next()) else {
        return unreadable();
    };
    if device != DEVICE {
        return error(404, "Device not found");
    }
    if user != USER {
        return error(403, "Permission denied");
    }
    let name = book.firmware.get(&id).map(|firmware| firmware.name.clone());
    match (route, name) {
        (Route::Latest, _) => json_answer(200, &book.list()),
        (Route::File, None) => error(404, "Firmware file not found"),
        (Route::File, Some(_)) if book.now_firmware == Some(id) => error(400, "Invalid firmware"),
        (Route::File, Some(name)) => {
            let (url, status) = book.sign(&name);
            Answer {
                status,
                headers: vec![("Location".to_owned(), url)],
                body: Vec::new(),
            }
        }
        (_, None) => error(400, "Firmware not matched with device"),
        (_, Some(_)) => {
            book.now_firmware = Some(id);
            json_answer(200, &book.device())
        }
    }
}

fn tokens(book: &mut Book) -> Answer {
    let session = book.new_session();
    json_answer(
        200,
        &json!({
            "access_token": session.access, "expires_in": 900, "refresh_token": session.refresh, "refresh_expires_in": 1_209_600,
            "id": "lab", "token_type": "bearer",
        }),
    )
}

fn error(status: u16, detail: &str) -> Answer {
    json_answer(status, &json!({ "detail": detail }))
}

/// What FastAPI says of a request that is not what its route takes.
fn unreadable() -> Answer {
    let fault =
        json!({ "type": "missing", "loc": ["body"], "msg": "Field required", "input": null });
    json_answer(422, &json!({ "detail": [fault] }))
}

fn json_answer(status: u16, body: &Value) -> Answer {
    Answer {
        status,
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}

/// The sentence of an error, or the place of a redirect without its query.
fn said(answer: &Answer) -> String {
    let location = answer.headers.iter().find(|(name, _)| name == "Location");
    if let Some((_, location)) = location {
        return location.split('?').next().unwrap_or_default().to_owned();
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["detail"].as_str().unwrap_or_default().to_owned()
}

/// The refresh token in a body.
fn presented(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body["refresh_token"].as_str()?.to_owned())
}

/// User name and password of a form.
fn form(body: &[u8]) -> Option<(String, String)> {
    let body = std::str::from_utf8(body).ok()?;
    let value = |name: &str| {
        let mut fields = body.split('&').filter_map(|field| field.split_once('='));
        fields
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| decoded(value))
    };
    Some((value("username")?, value("password")?))
}

fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
