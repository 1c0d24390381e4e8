//! Runs the agent: builds an engine, and another one when a commit failed, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::api::{self, ApiCall, ErrorCode, Reply};
use crate::assemble;
use crate::config::{Config, Faults, Finding};
use crate::engine::{Engine, Exit as EngineExit, Input};
use crate::exit::{Exit, ExitError};

/// Requests of the local API that may wait.
const API_CALLS: usize = 32;
/// Wait before the journal is opened again after a failed commit; doubles.
const RELOAD_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait.
const RELOAD_MAX: Duration = Duration::from_secs(60);
/// How long the device may take from the reboot request to the end of this process.
const REBOOT_WITHIN: Duration = Duration::from_secs(60);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What stood against the start, or ended it.
pub fn run(config: Config) -> Result<(), ExitError> {
    let refuse = |findings: Vec<Finding>| {
        ExitError::new(
            Exit::Configuration,
            Faults::about(&config.path, findings).to_string(),
            "",
        )
    };
    let assembled = assemble::assemble(&config).map_err(refuse)?;
    let offline = assembled.offline.clone();
    let platform = assemble::platform(&config, &assembled).map_err(refuse)?;
    let setup = Arc::new(assembled.setup);
    // Work beside the engine that dies without a word would leave a job or an adapter hanging for ever. The service manager starts the
    // agent again, on the path that every crash takes.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !otahost_flash::archive::is_decoding() {
            std::process::abort();
        }
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| ExitError::failure(format!("the runtime does not start: {e}"), ""))?;
    runtime.block_on(async {
        let (calls_in, calls) = mpsc::channel(API_CALLS);
        let (engine_in, engine_out) = watch::channel(None);
        tokio::spawn(relay(calls, engine_out));
        if let Some(offline) = offline {
            tokio::spawn(crate::offline::watch(offline, calls_in.clone()));
        }
        let _server = api::serve(&config.device.socket, calls_in).map_err(|e| {
            let what = format!(
                "the local API cannot listen on {}: {e}",
                config.device.socket.display()
            );
            ExitError::failure(what, "`device.socket` names another place")
        })?;
        let mut stop = Stop::new()?;
        let mut wait = RELOAD_FIRST;
        loop {
            let began = Instant::now();
            let reload = match Engine::start(platform.clone(), setup.clone()).await {
                Err(error) => error.to_string(),
                Ok(engine) => {
                    let sender = engine.sender();
                    let _ = engine_in.send(Some(sender.clone()));
                    tracing::info!(device = setup.device, "running");
                    let mut running = tokio::spawn(engine.run());
                    let exit = tokio::select! {
                        exit = &mut running => exit,
                        () = stop.asked() => {
                            let _ = sender.send(Input::Stop).await;
                            running.await
                        }
                    };
                    let _ = engine_in.send(None);
                    match exit {
                        Ok(EngineExit::Stopped) => return Ok(()),
                        Ok(EngineExit::Rebooting) => {
                            tokio::select! {
                                () = stop.asked() => return Ok(()),
                                () = tokio::time::sleep(REBOOT_WITHIN) => {}
                            }
                            "the device did not reboot when asked".to_owned()
                        }
                        Ok(EngineExit::Reload(reason)) => reason,
                        Err(panicked) => {
                            return Err(ExitError::failure(
                                format!("the engine stopped: {panicked}"),
                                "this is a fault of otahost",
                            ));
                        }
                    }
                }
            };
            if began.elapsed() > RELOAD_MAX {
                wait = RELOAD_FIRST;
            }
            tracing::error!(
                reason = reload,
                wait_s = wait.as_secs(),
                "starting again from the journal"
            );
            tokio::select! {
                () = stop.asked() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RELOAD_MAX);
        }
    })
}

/// Hands requests of the local API to the engine of the moment.
async fn relay(
    mut calls: mpsc::Receiver<ApiCall>,
    engine: watch::Receiver<Option<mpsc::Sender<Input>>>,
) {
    while let Some(call) = calls.recv().await {
        let sender = engine.borrow().clone();
        let unserved = match sender {
            Some(sender) => match sender.send(Input::Api(call)).await {
                Ok(()) => None,
                Err(mpsc::error::SendError(Input::Api(call))) => Some(call),
                Err(_) => None,
            },
            None => Some(call),
        };
        if let Some(call) = unserved {
            let message = "the agent is starting or the device reboots; ask again".to_owned();
            let _ = call.reply.try_send(Reply::Error {
                code: ErrorCode::Unavailable,
                message,
            });
        }
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, ExitError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| ExitError::failure(format!("cannot listen for signals: {e}"), ""))
        };
        Ok(Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
