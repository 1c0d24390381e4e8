//! Runs the agent: builds an engine, and another one when a commit failed, until it is told to stop.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{self, ApiCall, ErrorCode, Reply, Request};
use crate::assemble;
use crate::config::{Config, Faults, Finding};
use crate::engine::{Engine, Exit as EngineExit, Input};
use crate::exit::{Exit, ExitError};
use crate::notices::Notices;
use crate::reload::{Next, Reloader, World};
use crate::repository;

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
    let refuse = |path: &Path, findings: Vec<Finding>| {
        ExitError::new(
            Exit::Configuration,
            Faults::about(path, findings).to_string(),
            "",
        )
    };
    let base = assemble::Base::open(&config).map_err(|found| refuse(&config.path, found))?;
    let path = config.path.clone();
    let mut world = World::build(config, &base).map_err(|findings| refuse(&path, findings))?;
    for fault in &world.faults {
        tracing::error!(key = fault.key, advice = fault.advice, "{}", fault.what);
    }
    // Work beside the engine that dies without a word would leave a job or an adapter hanging for ever. The service manager starts the
    // agent again, on the path that every crash takes.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !otahost_flash::archive::is_decoding() && !otahost_journal::is_salvaging() {
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
        let notices = Notices::default();
        let (reload_in, reloads) = mpsc::channel(API_CALLS);
        let (next_in, mut next) = mpsc::channel(1);
        tokio::spawn(relay(calls, engine_out, reload_in, notices.clone()));
        let reloader = Reloader::new(
            base,
            world.config.clone(),
            calls_in.clone(),
            next_in,
            notices.clone(),
        );
        tokio::spawn(reloader.run(reloads));
        let mut beside = work_beside(&world, &calls_in, &notices);
        let socket = world.config.device.socket.clone();
        let _server = match api::serve(&socket, calls_in.clone()) {
            Ok(server) => Some(server),
            Err(e) if is_disk_trouble(&e) => {
                // A version on trial must be confirmed or rolled back also where nobody can be answered.
                tracing::error!(error = %e, "the local API cannot listen; it is tried again");
                tokio::spawn(serve_later(socket, calls_in.clone()));
                None
            }
            Err(e) => {
                let what = format!("the local API cannot listen on {}: {e}", socket.display());
                return Err(ExitError::failure(
                    what,
                    "`device.socket` names another place",
                ));
            }
        };
        let mut stop = Stop::new()?;
        let mut wait = RELOAD_FIRST;
        // Who waits for the engine to run with another configuration.
        let mut started = None;
        loop {
            let began = Instant::now();
            let mut replaced = None;
            let reload = match Engine::start(world.platform.clone(), world.setup.clone()).await {
                Err(error) => error.to_string(),
                Ok(engine) => {
                    let sender = engine.sender();
                    let _ = engine_in.send(Some(sender.clone()));
                    tracing::info!(device = world.setup.device, "running");
                    if let Some(started) = started.take() {
                        let started: oneshot::Sender<()> = started;
                        let _ = started.send(());
                    }
                    let mut running = tokio::spawn(engine.run());
                    let exit = tokio::select! {
                        exit = &mut running => exit,
                        () = stop.asked() => {
                            let _ = sender.send(Input::Stop).await;
                            running.await
                        }
                        Some(other) = next.recv() => {
                            replaced = Some(other);
                            let _ = sender.send(Input::Stop).await;
                            running.await
                        }
                    };
                    let _ = engine_in.send(None);
                    match exit {
                        Ok(EngineExit::Stopped) if replaced.is_none() => return Ok(()),
                        Ok(EngineExit::Stopped) => String::new(),
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
            if let Some(Next {
                world: other,
                started: told,
            }) = replaced
            {
                beside.shutdown().await;
                (world, started) = (other, Some(told));
                notices.start_again();
                beside = work_beside(&world, &calls_in, &notices);
                if reload.is_empty() {
                    continue;
                }
            }
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

/// Starts what works beside the engine, as clients of the local API.
fn work_beside(world: &World, calls: &mpsc::Sender<ApiCall>, notices: &Notices) -> JoinSet<()> {
    let mut beside = JoinSet::new();
    notices.drop_ins(world.drop_ins.clone());
    for followed in world.repositories.clone() {
        let disk = world.platform.disk.clone();
        let (calls, notices) = (calls.clone(), notices.clone());
        beside.spawn(repository::watch(followed, disk, calls, notices));
    }
    if let Some(offline) = world.offline.clone() {
        beside.spawn(crate::offline::watch(offline, calls.clone()));
    }
    let (workshop, seam) = (world.platform.workshop.clone(), world.platform.seam);
    beside.spawn(async move { seam.run(move || workshop.keep_configured()).await });
    beside
}

/// Hands requests of the local API to the engine of the moment.
async fn relay(
    mut calls: mpsc::Receiver<ApiCall>,
    engine: watch::Receiver<Option<mpsc::Sender<Input>>>,
    reloads: mpsc::Sender<mpsc::Sender<Reply>>,
    notices: Notices,
) {
    while let Some(mut call) = calls.recv().await {
        if call.request == Request::Reload {
            // It asks the engine itself, and so nothing may wait for it here.
            if let Err(refused) = reloads.try_send(call.reply) {
                let _ = refused.into_inner().try_send(Reply::Error {
                    code: ErrorCode::Unavailable,
                    message: "the agent is taking in what was changed; ask again".to_owned(),
                });
            }
            continue;
        }
        if matches!(
            call.request,
            Request::Status | Request::AdapterInspect { .. }
        ) {
            call.reply = add_notices(call.reply, notices.clone());
        }
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

/// Where the engine's answer goes on its way to who asked for the status, or for one adapter.
fn add_notices(asker: mpsc::Sender<Reply>, notices: Notices) -> mpsc::Sender<Reply> {
    let (reply, mut replies) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(mut answer) = replies.recv().await {
            match &mut answer {
                Reply::Status(status) => notices.add_to(status),
                Reply::Adapter(details) => notices.add_to_adapter(&mut details.adapter),
                _ => {}
            }
            let _ = asker.send(answer).await;
        }
    });
    reply
}

fn is_disk_trouble(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        ReadOnlyFilesystem | StorageFull | QuotaExceeded
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Listens as soon as the file system of the socket takes it.
async fn serve_later(socket: std::path::PathBuf, calls: mpsc::Sender<ApiCall>) {
    loop {
        tokio::time::sleep(RELOAD_MAX).await;
        if let Ok(_server) = api::serve(&socket, calls.clone()) {
            return std::future::pending().await;
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
