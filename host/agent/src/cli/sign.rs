//! `otahost sign` and `otahost keygen`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{Failure, args, print_json, print_text, words};
use crate::exit::{Exit, ExitError};
use crate::sign::{
    Claims, SignError, SigningKey, read_password, sign_beside, sign_file, write_key_pair,
};

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
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let out = arguments.out.as_ref().unwrap_or(&arguments.file);
    let (out, signed) = if arguments.sidecar {
        let out = beside(out);
        let signed = sign_beside(&key, &arguments.file, &out, &claims, &mut progress);
        (out, signed)
    } else {
        let signed = sign_file(&key, &arguments.file, out, &claims, &mut progress);
        (out.clone(), signed)
    };
    bar.finish_and_clear();
    let signed = signed?;
    if json {
        print_json(&json!({
            "ok": true,
            "file": out.display().to_string(),
            "payload": signed.payload,
            "size": signed.total,
            "public_key": signed.public_key,
        }));
    } else {
        let what = if arguments.sidecar {
            format!(
                "the signature of {} ({}); publish both side by side, the signature under the file's name and `.minisig`",
                arguments.file.display(),
                words::bytes(signed.payload)
            )
        } else {
            format!(
                "{} ({} bytes with its header)",
                words::bytes(signed.payload),
                signed.total
            )
        };
        print_text(&format!(
            "{}: {what}\ntrust = {{ minisign = [\"{}\"] }} accepts it\n",
            out.display(),
            signed.public_key
        ));
    }
    Ok(Exit::Ok)
}

/// Where the signature of `file` lies.
fn beside(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".minisig");
    path.into()
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
