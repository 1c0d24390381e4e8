//! `otahost sign` and `otahost keygen`.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{Failure, args, print_json, print_text, words};
use crate::exit::{Exit, ExitError};
use crate::sign::{Claims, SignError, SigningKey, read_password, sign_file, write_key_pair};

impl From<SignError> for Failure {
    fn from(error: SignError) -> Self {
        ExitError::failure(error.to_string(), error.advice()).into()
    }
}

pub(super) fn sign(arguments: &args::Sign, json: bool) -> Result<Exit, Failure> {
    let password = arguments
        .password_file
        .as_deref()
        .map(read_password)
        .transpose()?;
    let key = SigningKey::load(&arguments.key, password.as_deref())?;
    let claims = Claims {
        compatible: arguments.compatible.clone(),
        version: arguments.version.clone(),
        rollback_index: arguments.rollback_index,
    };
    let bar = ProgressBar::new(0);
    if json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template("signing [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}")
            .expect("the template is constant")
            .progress_chars("=> ");
    bar.set_style(style);
    let signed = sign_file(
        &key,
        &arguments.file,
        &arguments.out,
        &claims,
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    );
    bar.finish_and_clear();
    let signed = signed?;
    if json {
        print_json(&json!({
            "ok": true,
            "file": arguments.out.display().to_string(),
            "payload": signed.payload,
            "size": signed.total,
            "public_key": signed.public_key,
        }));
    } else {
        print_text(&format!(
            "{}: {} ({} bytes with its header)\ntrust = {{ minisign = [\"{}\"] }} accepts it\n",
            arguments.out.display(),
            words::bytes(signed.payload),
            signed.total,
            signed.public_key
        ));
    }
    Ok(Exit::Ok)
}

pub(super) fn keygen(
    prefix: &Path,
    password_file: Option<&Path>,
    json: bool,
) -> Result<Exit, Failure> {
    let password = password_file.map(read_password).transpose()?;
    let files = write_key_pair(prefix, password.as_deref())?;
    if json {
        print_json(&json!({
            "ok": true,
            "secret": files.secret.display().to_string(),
            "public": files.public.display().to_string(),
            "public_key": files.public_key,
        }));
    } else {
        print_text(&format!(
            "{}: the secret key; keep it off every device\n{}: the public key\ntrust = {{ minisign = [\"{}\"] }}\n",
            files.secret.display(),
            files.public.display(),
            files.public_key
        ));
    }
    Ok(Exit::Ok)
}
