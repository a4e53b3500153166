//! Checks made at the Engine before a request may pass under `no-privileged`: whether an existing container, which the
//! request uses or whose namespaces it shares, would be allowed now.
//!
//! A container's rights are fixed when it is created, so a result holds for its id for ever, and is stored. Containers
//! created through this guard are known from the Engine's answer: ordinary clients wait for no additional round trip.

use std::collections::{HashSet, VecDeque};

use hyper::StatusCode;
use serde::Deserialize;

use super::ask::{Ask, ask};
use super::bodies::{Create, Existing, ExistingExec, Reference, is_name, is_whole_id, judge_existing_volume, shown};
use super::defaults::Info;
use super::operation::{Makes, Reach};
use super::refusal::{Refused, forbidden};
use crate::sync::lock;

/// Limit of stored ids, of containers and of execs each.
const MAX_KEPT: usize = 4096;
/// Limit of containers checked for one request: each may share namespaces of others.
const MAX_ASKED: usize = 8;
/// Limit of volumes checked for one container.
const MAX_VOLUMES: usize = 64;
/// Limit of an answer, in bytes.
pub(super) const MAX_ANSWER: usize = 4 << 20;

/// How long the result for a create holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The created container is harmless.
    ForGood,
    /// It names a volume, which may have been replaced under the same name before the Engine used it.
    UntilThen,
}

/// Containers and execs known to be harmless.
#[derive(Debug, Default)]
pub(super) struct Known {
    containers: Kept,
    execs: Kept,
}

/// The most recent ids.
#[derive(Debug, Default)]
struct Kept {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Kept {
    fn add(&mut self, id: &str) {
        if self.ids.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > MAX_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// The answer to a create.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
}

impl Known {
    /// Stores the id of an object that the Engine created for a request that passed.
    pub(super) fn learn(&mut self, made: Makes, answer: &[u8]) {
        let Ok(Made { id }) = serde_json::from_slice(answer) else { return };
        // Not a name, which another object may get later, nor any other text of an Engine.
        if !is_whole_id(&id) {
            return;
        }
        match made {
            Makes::Container => self.containers.add(&id),
            Makes::Exec => self.execs.add(&id),
        }
    }
}

impl super::Guard {
    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut lock(&self.known))
    }

    /// See [`Known::learn`].
    pub(super) fn learn(&self, made: Makes, answer: &[u8]) {
        self.known(|known| known.learn(made, answer));
    }

    /// Checks the object that a request uses. Returns the request's path, with a container's id in place of its name.
    ///
    /// # Errors
    /// The object would not be allowed.
    pub(super) async fn reach(
        &self,
        operation: &str,
        reach: Reach,
        path: &str,
        engine: &impl Ask,
    ) -> Result<String, Refused> {
        let kind = match reach {
            Reach::Exec => "/exec/",
            Reach::Container => "/containers/",
        };
        let parts = path.split_once(kind).and_then(|(before, rest)| {
            let (name, after) = rest.split_once('/')?;
            Some((before, name, after))
        });
        let (before, name, after) = parts.ok_or_else(|| forbidden(format!("{operation}: it names nothing")))?;
        let of = |(status, reason): Refused| (status, format!("{operation}: {reason}"));
        if reach == Reach::Exec {
            self.exec(name, engine).await.map_err(of)?;
            return Ok(path.to_owned());
        }
        let id = self.container(name, engine).await.map_err(of)?;
        Ok(format!("{before}{kind}{id}/{after}"))
    }

    /// Checks all objects that a new container refers to.
    ///
    /// # Errors
    /// One of them is not allowed.
    pub(super) async fn settle(&self, create: &mut Create, engine: &impl Ask) -> Result<Settled, Refused> {
        let (mut info, mut settled) = (None, Settled::ForGood);
        for source in create.below(&self.rules.ground()) {
            asked_of(&mut info, engine).await?.may_be_below(&source)?;
        }
        let references = create.references();
        check_number(&references)?;
        for reference in references {
            let in_field = |field: &str, (status, reason)| (status, format!("{field}: {reason}"));
            match reference {
                Reference::Container { field, name, set } => {
                    set(&self.container(&name, engine).await.map_err(|refused| in_field(field, refused))?);
                }
                Reference::Volume { field, name } => {
                    self.volume(&name, engine).await.map_err(|refused| in_field(field, refused))?;
                    settled = Settled::UntilThen;
                }
                other => settle_default(&mut info, other, engine).await?,
            }
        }
        Ok(settled)
    }

    /// Checks that a volume does not exist, or would be allowed now. Checked each time: a result does not hold for
    /// the next volume of that name.
    async fn volume(&self, name: &str, engine: &impl Ask) -> Result<(), Refused> {
        if !is_name(name) {
            return Err(forbidden(format!("{} names no volume", shown(name))));
        }
        match engine.get(&format!("/volumes/{name}")).await? {
            (StatusCode::OK, inspect) => judge_existing_volume(&inspect, &self.rules.ground())
                .map_err(|why| forbidden(format!("volume {} would not be allowed itself: {why}", shown(name)))),
            // It is created with the container, as the request specifies.
            (StatusCode::NOT_FOUND, _) => Ok(()),
            (status, _) => {
                Err((StatusCode::BAD_GATEWAY, format!("the Engine answered {status} about volume {}", shown(name))))
            }
        }
    }

    /// The id of a container, if the container would be allowed now.
    async fn container(&self, name: &str, engine: &impl Ask) -> Result<String, Refused> {
        let mut waiting = vec![name.to_owned()];
        let mut asked: Vec<String> = Vec::new();
        let (mut first, mut info) = (None, None);
        while let Some(next) = waiting.pop() {
            if asked.contains(&next) || self.known(|known| known.containers.ids.contains(&next)) {
                first.get_or_insert(next);
                continue;
            }
            if asked.len() >= MAX_ASKED {
                return Err(forbidden(format!("container {} shares with too many others", shown(name))));
            }
            if !is_name(&next) {
                return Err(forbidden(format!("{} names no container", shown(&next))));
            }
            let inspect = ask(engine, &format!("/containers/{next}/json"), &format!("container: {next}")).await?;
            let existing = Existing::read(&inspect, &self.rules.ground());
            let mut existing = existing.map_err(|why| not_allowed(&next, &why))?;
            let id = existing.id.clone();
            for source in existing.below(&self.rules.ground()) {
                let info = asked_of(&mut info, engine).await?;
                info.may_be_below(&source).map_err(|(_, why)| not_allowed(&next, &why))?;
            }
            let references = existing.references();
            check_number(&references)?;
            for reference in references {
                let of_next = |(status, why): Refused| match status {
                    StatusCode::FORBIDDEN => not_allowed(&next, &why),
                    other => (other, why),
                };
                match reference {
                    Reference::Container { name, .. } => waiting.push(name),
                    Reference::Volume { name, .. } => self.volume(&name, engine).await.map_err(of_next)?,
                    other => settle_default(&mut info, other, engine).await.map_err(of_next)?,
                }
            }
            first.get_or_insert_with(|| id.clone());
            asked.push(id);
        }
        self.known(|known| asked.iter().for_each(|id| known.containers.add(id)));
        first.ok_or_else(|| forbidden("there is no container"))
    }

    /// Checks that an exec would be allowed now.
    async fn exec(&self, id: &str, engine: &impl Ask) -> Result<(), Refused> {
        if self.known(|known| known.execs.ids.contains(id)) {
            return Ok(());
        }
        let inspect = ask(engine, &format!("/exec/{id}/json"), &format!("exec instance: {id}")).await?;
        let exec = ExistingExec::read(&inspect).map_err(forbidden)?;
        self.container(&exec.container, engine).await?;
        self.known(|known| known.execs.add(id));
        Ok(())
    }
}

fn not_allowed(name: &str, why: &str) -> Refused {
    forbidden(format!("container {} would not be allowed itself: {why}", shown(name)))
}

/// Limits the volumes: each needs a request, and a body may name any number of them.
fn check_number(references: &[Reference<'_>]) -> Result<(), Refused> {
    let volumes = references.iter().filter(|reference| matches!(reference, Reference::Volume { .. })).count();
    if volumes > MAX_VOLUMES {
        return Err(forbidden(format!("{volumes} volumes are more than the {MAX_VOLUMES} that are asked about")));
    }
    Ok(())
}

/// The Engine's info, requested at most once per client request.
async fn asked_of<'a>(info: &'a mut Option<Info>, engine: &impl Ask) -> Result<&'a Info, Refused> {
    match info {
        Some(info) => Ok(info),
        None => Ok(info.insert(Info::of(engine).await?)),
    }
}

/// Checks a reference against the Engine's defaults.
async fn settle_default(info: &mut Option<Info>, what: Reference<'_>, engine: &impl Ask) -> Result<(), Refused> {
    asked_of(info, engine).await?.settle(what)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hyper::body::Bytes;
    use serde_json::{Value, json};

    use super::super::Guard;
    use super::super::bodies::{Judged, judge_create};
    use super::super::policy::Rules;
    use super::*;
    use crate::config::{Access, Policy};

    /// An Engine with these answers, and 404 for everything else.
    struct Engine {
        answers: Vec<(String, u16, Value)>,
        asked: Mutex<Vec<String>>,
    }

    impl Engine {
        fn new(answers: impl IntoIterator<Item = (String, u16, Value)>) -> Self {
            Self { answers: answers.into_iter().collect(), asked: Mutex::default() }
        }

        /// The requests since the last call.
        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.asked))
        }
    }

    impl Ask for Engine {
        async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Refused> {
            lock(&self.asked).push(path.to_owned());
            let found = self.answers.iter().find(|(known, ..)| known == path);
            let (status, answer) = found.map_or((404, &Value::Null), |(_, status, answer)| (*status, answer));
            Ok((StatusCode::from_u16(status).expect("a status"), answer.to_string().into()))
        }
    }

    fn guard() -> Guard {
        let access = Access {
            policies: vec![Policy::NoPrivileged],
            allowed_binds: vec!["/srv/all/".into()],
            ..Access::default()
        };
        let rules = Rules::new(&access).expect("rules").expect("limited");
        Guard { rules, known: Mutex::default(), make: Mutex::default(), log: Arc::default() }
    }

    /// The id that belongs to a name.
    fn id(name: &str) -> String {
        let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex:0<64}")
    }

    fn container(name: &str, host: Value, mounts: Value) -> (String, u16, Value) {
        (format!("/containers/{name}/json"), 200, json!({"Id": id(name), "HostConfig": host, "Mounts": mounts}))
    }

    fn volume(name: &str, options: Value) -> (String, u16, Value) {
        (format!("/volumes/{name}"), 200, json!({"Driver": "local", "Options": options}))
    }

    fn exec(name: &str, container: &str, privileged: bool) -> (String, u16, Value) {
        let exec = json!({"ContainerID": id(container), "ProcessConfig": {"privileged": privileged}});
        (format!("/exec/{}/json", id(name)), 200, exec)
    }

    /// The same answer for a request by id.
    fn by_id((_, status, inspect): (String, u16, Value)) -> (String, u16, Value) {
        (format!("/containers/{}/json", inspect["Id"].as_str().expect("an id")), status, inspect)
    }

    fn info() -> (String, u16, Value) {
        let info = json!({"DefaultRuntime": "runc", "LoggingDriver": "json-file", "DockerRootDir": "/srv/all/docker"});
        ("/info".into(), 200, info)
    }

    async fn attach(guard: &Guard, name: &str, engine: &Engine) -> Result<String, Refused> {
        guard.reach("containers.attach", Reach::Container, &format!("/v1.41/containers/{name}/attach"), engine).await
    }

    async fn start_exec(guard: &Guard, name: &str, engine: &Engine) -> Result<String, Refused> {
        guard.reach("exec.start", Reach::Exec, &format!("/exec/{}/start", id(name)), engine).await
    }

    #[tokio::test]
    async fn a_container_is_reached_by_its_id_and_asked_about_once() {
        let (guard, engine) = (guard(), Engine::new([container("web", json!({}), json!([]))]));
        let reached = Ok(format!("/v1.41/containers/{}/attach", id("web")));
        assert_eq!(attach(&guard, "web", &engine).await, reached);
        assert_eq!(engine.asked(), ["/containers/web/json"]);
        assert_eq!(attach(&guard, &id("web"), &engine).await, reached);
        assert!(engine.asked().is_empty(), "its id stays its own");
        assert_eq!(attach(&guard, "web", &engine).await, reached);
        assert_eq!(engine.asked(), ["/containers/web/json"], "its name may be another's by now");
        for name in ["a b", "a@b", ".."] {
            assert!(attach(&guard, name, &engine).await.is_err(), "{name}");
        }
        let nothing = guard.reach("containers.attach", Reach::Container, "/info", &engine).await;
        assert_eq!(nothing.expect_err("no container").0, StatusCode::FORBIDDEN);
        assert!(engine.asked().is_empty());
    }

    #[tokio::test]
    async fn a_container_that_has_more_or_shares_with_one_that_has_is_not_reached() {
        let below = |source: &str| {
            let mount = json!([{"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": true,
                "BindOptions": {"NonRecursive": true}}]);
            let mounted = json!([{"Type": "bind", "Source": source, "Destination": "/x", "RW": false}]);
            container("web", json!({"Mounts": mount}), mounted)
        };
        let mounted = |name: &str| json!([{"Type": "volume", "Name": name}]);
        let joins = |name: &str, other: &str| {
            container(name, json!({"PidMode": format!("container:{}", id(other))}), json!([]))
        };
        let harmless = |name: &str| by_id(container(name, json!({}), json!([])));
        let privileged = || by_id(container("evil", json!({"Privileged": true}), json!([])));
        let (forbidden, bad_gateway) = (Some(StatusCode::FORBIDDEN), Some(StatusCode::BAD_GATEWAY));
        for (answers, refused) in [
            (vec![container("web", json!({"Privileged": true}), json!([]))], forbidden),
            (vec![joins("web", "evil"), privileged()], forbidden),
            (vec![joins("web", "gone")], Some(StatusCode::NOT_FOUND)),
            (vec![joins("web", "other"), harmless("other")], None),
            (vec![joins("web", "other"), by_id(joins("other", "web"))], None),
            (vec![joins("web", "other"), by_id(joins("other", "evil")), privileged()], forbidden),
            (vec![("/containers/web/json".into(), 500, Value::Null)], bad_gateway),
            (vec![("/containers/web/json".into(), 200, json!({}))], forbidden),
            (vec![container("web", json!({}), mounted("v")), volume("v", Value::Null)], None),
            (vec![container("web", json!({}), mounted("v"))], None),
            (
                vec![container("web", json!({}), mounted("v")), volume("v", json!({"o": "bind", "device": "/"}))],
                forbidden,
            ),
            (vec![container("web", json!({}), mounted("v")), ("/volumes/v".into(), 500, Value::Null)], bad_gateway),
            (vec![container("web", json!({}), mounted("a/b"))], forbidden),
            (vec![below("/srv/all/x"), info()], None),
            (vec![below("/srv/all/docker/volumes/v/_data"), info()], forbidden),
            (vec![below("/srv/all/x")], Some(StatusCode::NOT_FOUND)),
            (vec![container("web", json!({"Runtime": "runc"}), json!([])), info()], None),
            (vec![container("web", json!({"Runtime": "evil"}), json!([])), info()], forbidden),
        ] {
            let (guard, engine) = (guard(), Engine::new(answers));
            let said = format!("{:?}", engine.answers);
            let reached = attach(&guard, "web", &engine).await;
            assert_eq!(reached.as_ref().err().map(|(status, _)| *status), refused, "{said}: {reached:?}");
            if refused.is_some() {
                engine.asked();
                assert!(attach(&guard, &id("web"), &engine).await.is_err(), "{said}");
                assert_eq!(engine.asked().len(), 1, "{said}: it is not taken for harmless");
            }
        }
    }

    #[tokio::test]
    async fn containers_that_share_with_many_others_are_asked_about_up_to_a_bound() {
        let chain = |length: usize| {
            (0..length).map(move |at| {
                let next = format!("container:{}", id(&format!("c{}", at + 1)));
                let host = if at + 1 < length { json!({"NetworkMode": next, "IpcMode": next}) } else { json!({}) };
                by_id(container(&format!("c{at}"), host, json!([])))
            })
        };
        let (short, long) = (Engine::new(chain(MAX_ASKED)), Engine::new(chain(MAX_ASKED + 1)));
        let refused = attach(&guard(), &id("c0"), &long).await.expect_err("too many");
        assert!(refused.1.contains("shares with too many others"), "{}", refused.1);
        let guard = guard();
        let reached = attach(&guard, &id("c0"), &short).await.expect("allowed");
        assert!(reached.contains(&id("c0")), "{reached}");
        assert_eq!(short.asked().len(), MAX_ASKED, "each once");
        for at in 0..MAX_ASKED {
            assert!(attach(&guard, &id(&format!("c{at}")), &short).await.is_ok(), "{at}");
        }
        assert_eq!(short.asked().len(), 0, "all of them are known now");
    }

    #[tokio::test]
    async fn a_command_is_started_where_its_container_would_be_allowed() {
        let engine = Engine::new([
            exec("good", "web", false),
            exec("privileged", "web", true),
            exec("elsewhere", "evil", false),
            by_id(container("web", json!({}), json!([]))),
            by_id(container("evil", json!({"Privileged": true}), json!([]))),
        ]);
        let guard = guard();
        assert_eq!(start_exec(&guard, "good", &engine).await, Ok(format!("/exec/{}/start", id("good"))));
        assert_eq!(engine.asked().len(), 2);
        assert!(start_exec(&guard, "good", &engine).await.is_ok());
        assert!(engine.asked().is_empty(), "what a command may do is decided when it is made");
        for name in ["privileged", "elsewhere"] {
            for _ in 0..2 {
                let refused = start_exec(&guard, name, &engine).await.expect_err(name);
                assert_eq!(refused.0, StatusCode::FORBIDDEN);
                assert!(refused.1.starts_with("exec.start: "), "{}", refused.1);
            }
        }
        assert_eq!(start_exec(&guard, "gone", &engine).await.expect_err("gone").0, StatusCode::NOT_FOUND);
        // A container's id is not an exec's.
        assert!(start_exec(&guard, "web", &engine).await.is_err());
    }

    #[tokio::test]
    async fn what_a_new_container_refers_to_is_asked_for_and_named_by_its_id() {
        let guard = guard();
        let settled = async |host: Value, engine: &Engine| {
            let body = json!({"Image": "x", "HostConfig": host}).to_string();
            let Ok(Judged::Create(mut create)) = judge_create(body.as_bytes(), &guard.rules.ground()) else {
                panic!("{body}")
            };
            let settled = guard.settle(&mut create, engine).await?;
            let sent: Value = serde_json::from_slice(&create.to_body().expect("JSON")).expect("JSON");
            Ok::<_, Refused>((settled, sent["HostConfig"].clone()))
        };
        let engine = Engine::new([
            container("web", json!({}), json!([])),
            container("evil", json!({"Privileged": true}), json!([])),
            volume("good", Value::Null),
            volume("evil", json!({"o": "bind", "device": "/"})),
            ("/volumes/broken".into(), 500, Value::Null),
            info(),
        ]);
        let many = |count: usize| (0..count).map(|at| format!("v{at}:/v{at}")).collect::<Vec<_>>();
        for (host, expected, asked) in [
            (json!({}), Some(Settled::ForGood), 0),
            (json!({"NetworkMode": "container:web"}), Some(Settled::ForGood), 1),
            (json!({"NetworkMode": "container:evil"}), None, 1),
            (json!({"NetworkMode": "container:gone"}), None, 1),
            (json!({"Binds": ["good:/x"]}), Some(Settled::UntilThen), 1),
            (json!({"Binds": ["not-there-yet:/x"]}), Some(Settled::UntilThen), 1),
            (json!({"Binds": ["evil:/x"]}), None, 1),
            (json!({"Binds": ["broken:/x"]}), None, 1),
            (json!({"Binds": many(MAX_VOLUMES)}), Some(Settled::UntilThen), MAX_VOLUMES),
            (json!({"Binds": many(MAX_VOLUMES + 1)}), None, 0),
            (json!({"Runtime": "runc", "LogConfig": {"Type": "json-file"}}), Some(Settled::ForGood), 1),
            (json!({"Runtime": "runc", "LogConfig": {"Config": {"tag": "x"}}}), Some(Settled::ForGood), 1),
            (json!({"Runtime": "evil"}), None, 1),
            (json!({"Binds": ["/srv/all/x:/x:ro"], "Runtime": "runc"}), Some(Settled::ForGood), 1),
            (json!({"Binds": ["/srv/all/docker/volumes/v/_data:/x:ro"]}), None, 1),
        ] {
            let found = settled(host.clone(), &engine).await;
            assert_eq!(found.as_ref().ok().map(|(settled, _)| *settled), expected, "{host}: {found:?}");
            assert_eq!(engine.asked().len(), asked, "{host}");
        }
        let (_, sent) = settled(json!({"PidMode": "container:web"}), &engine).await.expect("allowed");
        assert_eq!(sent["PidMode"], format!("container:{}", id("web")));
        let (status, reason) = settled(json!({"Binds": ["evil:/x"]}), &engine).await.expect_err("refused");
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(reason.starts_with("HostConfig.Binds: volume evil would not be allowed itself: "), "{reason}");
    }

    #[tokio::test]
    async fn what_was_made_here_is_known_until_too_much_else_is() {
        let (guard, engine) = (guard(), Engine::new([]));
        let made = |id: &str| json!({"Id": id, "Warnings": []}).to_string();
        for answer in [made("web"), made(&"A".repeat(64)), "{}".into(), "no JSON".into()] {
            guard.learn(Makes::Container, answer.as_bytes());
        }
        assert!(attach(&guard, "web", &engine).await.is_err(), "a name may be another's by and by");
        assert!(attach(&guard, &"A".repeat(64), &engine).await.is_err());
        guard.learn(Makes::Container, made(&id("web")).as_bytes());
        guard.learn(Makes::Exec, made(&id("good")).as_bytes());
        engine.asked();
        assert!(attach(&guard, &id("web"), &engine).await.is_ok() && start_exec(&guard, "good", &engine).await.is_ok());
        assert!(engine.asked().is_empty());
        assert!(
            attach(&guard, &id("good"), &engine).await.is_err() && start_exec(&guard, "web", &engine).await.is_err()
        );
        // The oldest one is dropped at the limit.
        for at in 1..MAX_KEPT {
            guard.learn(Makes::Container, made(&format!("{at:064x}")).as_bytes());
        }
        guard.learn(Makes::Container, made(&id("web")).as_bytes());
        assert!(attach(&guard, &id("web"), &engine).await.is_ok());
        guard.learn(Makes::Container, made(&id("last")).as_bytes());
        assert!(attach(&guard, &id("web"), &engine).await.is_err());
        assert!(attach(&guard, &format!("{:064x}", 1), &engine).await.is_ok());
    }
}
