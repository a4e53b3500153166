//! The daemon itself, in the background or as `up --foreground`.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control::{Control, Life, Who, say};
use super::log;
use super::manager;
use super::options::Options;
use super::prompt_relay::PromptRelay;
use super::protocol::{Added, Event};
use crate::config::{
    self, ConfigFile, Proxy, RuntimeFiles, TunnelName, log_path, prepare_runtime_dir, resolve, route_path,
};
use crate::failure::{ExitCode, Failure};
use crate::host;
use crate::os::inherited::{self, Inherited};
use crate::os::local::{self, BlockingListener, BlockingStream, SocketFile, Stream, bind_private};
use crate::os::lock::Lock;
use crate::os::process::keep_memory_private;
use crate::os::programs;
use crate::os::signals::{Asked, Signals};
use crate::ssh::{self, Carried, Carrier, Prompter, Questions, Step};
use crate::tunnel::{self, Listener, State, Tunnel};

/// Time limit at the end for clients to read their last event.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Pause after the control socket failed to accept, most likely for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Runs the tunnel until its end. `parent` is a control connection to the process that waits for the tunnel to come
/// up; failures are reported there.
///
/// # Errors
/// Why the tunnel did not come up; already reported to `parent`.
pub fn run(options: &Options, parent: BlockingStream, inherited: Option<Inherited>) -> Result<(), Failure> {
    if !options.foreground {
        programs::leave_terminal();
    }
    // This process's memory holds keys and passwords: other processes must not read it, and it must
    // not be dumped to a core file.
    keep_memory_private();
    programs::limit_daemon();
    let hello = Event::Hello {
        protocol: super::protocol::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
    };
    match prepare(options) {
        Ok(Some(prepared)) => serve(options, prepared, parent, inherited),
        Ok(None) => {
            say(&parent, &[hello, Event::AlreadyRunning]);
            Ok(())
        }
        Err(failure) => {
            say(&parent, &[hello, Event::Failed { failure: failure.clone() }]);
            Err(failure)
        }
    }
}

/// The daemon's parts that are created before the first connection.
struct Prepared {
    tunnel: Arc<Tunnel>,
    prompter: Prompter,
    questions: Questions,
    lock: Lock,
    control: BlockingListener,
    control_file: SocketFile,
    /// The file that stores the Engine's route and the carrier for the next start.
    route_file: PathBuf,
    /// The log's path, if the log is removed when no host is reached.
    passing_log: Option<PathBuf>,
}

/// Takes the lock and reads the configuration. None if another daemon runs this tunnel.
fn prepare(options: &Options) -> Result<Option<Prepared>, Failure> {
    let config = ConfigFile::load(&options.config, options.config_named)?;
    let name = TunnelName::of_target(&options.target, &config)?;
    let dir = prepare_runtime_dir()?;
    let files = RuntimeFiles::new(&dir, &name)?;
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source: io::Error| Failure::from(config::Error::File { action: "open", path, source })
    };
    let Some(lock) = Lock::take(&files.lock).map_err(failed(&files.lock))? else { return Ok(None) };
    let log_file = log_path(&name)?;
    // A name without a profile or a host is most likely misspelt: its log is removed.
    let passing_log = (!log_file.exists() && !config.profiles.contains_key(&options.target)).then(|| log_file.clone());
    log::start(&log_file, options.verbose, options.foreground && options.verbose > 0);
    let (control, control_file) = bind_private(&files.control).map_err(failed(&files.control))?;
    let target = resolve(&options.target, &config, &options.overrides, &files.socket)?;
    tracing::info!(
        "dtunnel {} (pid {}) to {} for {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        target.address(),
        target.name
    );
    let route_file = route_path(&name)?;
    let known = std::fs::read_to_string(&route_file).unwrap_or_default();
    let mut lines = known.lines();
    let route = lines.next().and_then(|line| line.parse().ok());
    let openssh_first = lines.next() == Some(OPENSSH_FIRST);
    let carried = openssh_first.then_some(Carried { by: Carrier::OpenSsh, why: None, is_first: true });
    target.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let (prompter, questions) = Prompter::new();
    let tunnel = Tunnel::new(target, prompter.clone(), route, carried)?;
    Ok(Some(Prepared { tunnel, prompter, questions, lock, control, control_file, route_file, passing_log }))
}

fn serve(
    options: &Options,
    prepared: Prepared,
    parent: BlockingStream,
    inherited: Option<Inherited>,
) -> Result<(), Failure> {
    // One thread: a daemon serves one tunnel, and mostly moves bytes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(ExitCode::Other, format!("cannot start: {e}")))?;
    let result = runtime.block_on(supervise(options, prepared, parent, inherited));
    // Does not wait for the check of a passphrase in progress.
    runtime.shutdown_background();
    result
}

async fn supervise(
    options: &Options,
    prepared: Prepared,
    parent: BlockingStream,
    inherited: Option<Inherited>,
) -> Result<(), Failure> {
    let Prepared { tunnel, prompter, questions, lock, control: listener, control_file, route_file, passing_log } =
        prepared;
    let other = |e: io::Error| Failure::new(ExitCode::Other, format!("cannot start: {e}"));
    parent.set_nonblocking(true).map_err(other)?;
    let parent = Stream::from_std(parent).map_err(other)?;
    let listener = local::Listener::from_std(listener).map_err(other)?;
    let target = tunnel.target();
    let endpoint = match inherited {
        Some(inherited) => Listener::inherit(inherited, &target.local),
        None => Listener::bind(&target.local),
    };
    let docker_host = endpoint.as_ref().map_or(&target.local, |l| l.endpoint()).docker_host();
    let control = Arc::new(Control {
        tunnel,
        prompts: PromptRelay::new(),
        docker_host,
        stop: CancellationToken::new(),
        life: watch::Sender::new(Life::Running),
        prompter,
        options: Mutex::new(options.clone()),
    });
    let mut clients = JoinSet::new();
    let starter = control.clone();
    let abandoned = Arc::new(AtomicBool::new(false));
    let abandons = abandoned.clone();
    clients.spawn(async move {
        starter.serve(parent, Who::Starter).await;
        // The starting client has gone before the tunnel was up (Ctrl-C): end the tunnel.
        if starter.tunnel.watch().borrow().state == State::Starting {
            let reached = !matches!(starter.tunnel.watch().borrow().step, Step::Resolving | Step::Connecting);
            abandons.store(!reached, Relaxed);
            starter.stop.cancel();
        }
    });
    let ended = {
        let running = async {
            match endpoint {
                Ok(endpoint) => control.tunnel.run(endpoint, options.timeout, control.stop.clone()).await,
                Err(error) => Err(error),
            }
        };
        let asking = control.prompts.run(questions);
        let accepting = accept(&listener, &control, &mut clients);
        let signals = obey_signals(&control);
        let following = follow(options, &control.tunnel, &route_file);
        tokio::pin!(running, asking, accepting, signals, following);
        loop {
            // Only the tunnel's end completes this; the other branches run alongside.
            tokio::select! {
                result = &mut running => break result,
                () = &mut asking => {}
                () = &mut accepting => {}
                () = &mut signals => {}
                () = &mut following => {}
            }
        }
    };
    // A ProxyCommand's messages are worth keeping in any case.
    let alone = !matches!(control.tunnel.target().ssh.proxy, Proxy::Command(_));
    let unreached = alone && (abandoned.load(Relaxed) || ended.as_ref().is_err_and(reached_nobody));
    let result = ended.map_err(Failure::from);
    match &result {
        Ok(()) => tracing::info!("ended"),
        Err(failure) => tracing::error!("{}", failure.message),
    }
    if let Some(log) = passing_log.filter(|_| unreached) {
        let _ = std::fs::remove_file(log);
    }
    // Clean up first, then tell the clients.
    let _ = tokio::task::spawn_blocking(ssh::end_programs).await;
    drop(listener);
    drop(control_file);
    drop(lock);
    control.life.send_replace(match &result {
        Ok(()) => Life::Stopped,
        Err(failure) => Life::Failed(failure.clone()),
    });
    let leaving = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORD, leaving).await.is_err() {
        tracing::warn!("{} control clients did not read their last event", clients.len());
    }
    result
}

/// Whether the error means that no host was reached.
fn reached_nobody(error: &tunnel::Error) -> bool {
    match error {
        tunnel::Error::Host(host::Error::Ssh(ssh::Error::Jump { .. }))
        | tunnel::Error::Timeout { step: Step::Resolving | Step::Connecting, .. } => true,
        error => error.is_unreached(),
    }
}

/// Serves the control socket. Never returns.
async fn accept(listener: &local::Listener, control: &Arc<Control>, clients: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if local::peer(&stream).is_ok_and(|peer| peer.is_this_user()) => {
                    let control = control.clone();
                    clients.spawn(async move { control.serve(stream, Who::Other).await });
                }
                Ok(_) => tracing::warn!("turned away a control client of another user"),
                Err(e) => {
                    tracing::warn!("cannot accept a control connection: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// The second line of the route's file where the machine's ssh is tried first.
const OPENSSH_FIRST: &str = "openssh";

/// Stores the Engine's route and the carrier for the next start, and keeps a service manager informed. Never returns.
async fn follow(options: &Options, tunnel: &Tunnel, route_file: &std::path::Path) {
    let mut status = tunnel.watch();
    let of = |status: &tunnel::Status| {
        (status.route.clone(), status.carried.as_ref().is_some_and(|carried| carried.is_first))
    };
    let mut kept = of(&status.borrow());
    let mut told = None;
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        if options.foreground && told != Some((now.state, now.last_error.clone())) {
            told = Some((now.state, now.last_error.clone()));
            manager::tell(&now);
        }
        let now = of(&now);
        if now != kept {
            let first = if now.1 { format!("{OPENSSH_FIRST}\n") } else { String::new() };
            // If it cannot be stored, only the next start is slower.
            if let Some(route) = &now.0
                && let Err(e) = std::fs::write(route_file, format!("{route}\n{first}"))
            {
                tracing::info!("cannot write {}: {e}", route_file.display());
            }
            kept = now;
        }
    }
    std::future::pending().await
}

/// SIGTERM and SIGINT end the tunnel as `down` does; SIGHUP reloads its configuration. Never returns.
async fn obey_signals(control: &Control) {
    let stop = || {
        inherited::tell_stopping();
        control.stop.cancel();
    };
    let Ok(mut signals) = Signals::listen() else {
        tracing::warn!("signals end this process at once");
        return std::future::pending().await;
    };
    let mut reloading = None;
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => stop(),
                Asked::Reload => reloading = Some(Box::pin(control.reload(Added::default()))),
            },
            Some(result) = async { Some(reloading.as_mut()?.await) }, if reloading.is_some() => {
                reloading = None;
                if let Err(failure) = result {
                    tracing::error!("{}", failure.message);
                }
            }
        }
    }
}
