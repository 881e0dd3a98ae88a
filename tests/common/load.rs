//! Load while nodes die: workers that each stay with one node, go on with the next call as soon as one is answered,
//! check every answer, and remember what was acknowledged.
//!
//! Say [`Load::goes_down`] before a node is killed and [`Load::is_up`] when it serves again: a call that was under
//! way between the two may end in any way, every other one must succeed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave::client::{Capability, Client, ClientError, Identity};
use futures::stream::{self, StreamExt as _};
use rand::Rng as _;
use rand::rngs::OsRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ledger;
use super::world::{self, ED25519, Key};

/// Checks of what was acknowledged that are under way at once.
const CHECKS: usize = 16;

/// Up or down, and how often that changed.
type Life = (u64, bool);

/// What one worker saw.
#[derive(Default)]
pub(crate) struct Account {
    /// Keys whose making was acknowledged.
    pub(crate) keys: Vec<(Arc<Identity>, Key)>,
    /// Capabilities whose revocation was acknowledged: bearer, key.
    pub(crate) revoked: Vec<(Arc<Identity>, Key, Capability)>,
    /// Capabilities whose revocation was cut off with its node.
    pub(crate) in_doubt: Vec<(Arc<Identity>, Key, Capability)>,
    /// Answered calls.
    pub(crate) answered: usize,
    /// The slowest of them, and what it was.
    pub(crate) slowest: (Duration, &'static str),
    /// How long each answer took, microseconds.
    pub(crate) took: Vec<u32>,
    /// What went wrong at nodes that lived.
    pub(crate) errors: Vec<String>,
}

/// The workers.
pub(crate) struct Load {
    lives: Vec<watch::Sender<Life>>,
    stop: watch::Sender<bool>,
    answered: watch::Sender<Vec<usize>>,
    workers: JoinSet<Account>,
}

struct Worker {
    node: usize,
    clients: Arc<[Client]>,
    life: watch::Receiver<Life>,
    stop: watch::Receiver<bool>,
    answered: watch::Sender<Vec<usize>>,
    /// Keys that it makes at most, and as many revocations; after that it goes on with those that it has.
    most: usize,
    account: Account,
}

impl Load {
    /// Starts `each` workers for every node, each with clients of its own: one for each node, in order. A worker makes
    /// `most` keys, if there is a bound, and goes on with those.
    pub(crate) async fn start(clients: impl Fn() -> Vec<Client>, each: usize, most: Option<usize>) -> Load {
        let nodes = clients().len();
        let lives: Vec<_> = (0..nodes).map(|_| watch::channel((0, true)).0).collect();
        let (stop, answered) = (watch::channel(false).0, watch::channel(vec![0; nodes]).0);
        let mut workers = JoinSet::new();
        for node in 0..nodes {
            for _ in 0..each {
                let clients = clients();
                let controller = Arc::new(Identity::generate(&mut OsRng));
                let keystore = world::keystore_by(&clients[node], &ledger::controller(), &controller).await;
                let worker = Worker {
                    node,
                    clients: clients.into(),
                    life: lives[node].subscribe(),
                    stop: stop.subscribe(),
                    answered: answered.clone(),
                    most: most.unwrap_or(usize::MAX),
                    account: Account::default(),
                };
                workers.spawn(worker.work(controller, keystore));
            }
        }
        Load {
            lives,
            stop,
            answered,
            workers,
        }
    }

    /// From now on calls to this node may fail.
    pub(crate) fn goes_down(&self, node: usize) {
        self.lives[node].send_modify(|life| *life = (life.0 + 1, false));
    }

    /// From now on they may not.
    pub(crate) fn is_up(&self, node: usize) {
        self.lives[node].send_modify(|life| *life = (life.0 + 1, true));
    }

    /// Waits until every node that is up has answered `more` calls from now on.
    pub(crate) async fn goes_on(&self, more: usize) {
        let mut answered = self.answered.subscribe();
        let before = answered.borrow().clone();
        let up: Vec<bool> = self.lives.iter().map(|life| life.borrow().1).collect();
        let enough =
            |now: &Vec<usize>| (0..up.len()).all(|node| !up[node] || now[node] >= before[node] + more);
        let enough = tokio::time::timeout(Duration::from_secs(60), answered.wait_for(enough)).await;
        assert!(enough.is_ok(), "a node that is up does not answer any more");
    }

    /// Ends the load; everything that happened.
    pub(crate) async fn finish(mut self) -> Account {
        self.stop.send_replace(true);
        let mut all = Account::default();
        while let Some(account) = self.workers.join_next().await {
            let account = account.unwrap();
            all.keys.extend(account.keys);
            all.revoked.extend(account.revoked);
            all.in_doubt.extend(account.in_doubt);
            all.errors.extend(account.errors);
            all.took.extend(account.took);
            all.answered += account.answered;
            all.slowest = all.slowest.max(account.slowest);
        }
        println!(
            "{} calls answered, the slowest ({}) in {:?}; {} keys, {} revocations, {} cut off",
            all.answered,
            all.slowest.1,
            all.slowest.0,
            all.keys.len(),
            all.revoked.len(),
            all.in_doubt.len()
        );
        all
    }
}

impl Account {
    /// So many percent of the answers took no longer.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        Duration::from_micros(u64::from(took.get(at).copied().unwrap_or(0)))
    }

    /// Nodes that lived refused nothing and accepted nothing wrong.
    pub(crate) fn is_faultless(&self) {
        assert!(self.errors.is_empty(), "at nodes that lived: {:#?}", self.errors);
    }

    /// Everything acknowledged is there on the node behind `client`, and nothing revoked is accepted.
    pub(crate) async fn holds_at(&self, client: &Client) {
        let keys = stream::iter(&self.keys);
        keys.for_each_concurrent(CHECKS, |(controller, key)| async move {
            let found = client.get_key(controller, &key.id, None).await.unwrap();
            assert_eq!(found, key.description);
            world::sign(client, controller, key, None).await.unwrap();
        })
        .await;
        let revoked = stream::iter(&self.revoked);
        revoked
            .for_each_concurrent(CHECKS, |(bearer, key, capability)| async move {
                let used = client.sign(bearer, &key.id, b"no", Some(capability)).await;
                assert_eq!(world::status(&used.unwrap_err()), Some(403));
            })
            .await;
    }

    /// What was cut off is whole or nothing: for each, whether the capability is revoked, the same on all nodes as
    /// soon as a node that endorsed it has finished it.
    pub(crate) async fn whole_or_nothing(&self, clients: &[Client]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        for (bearer, key, capability) in &self.in_doubt {
            loop {
                let mut verdicts = Vec::new();
                for client in clients {
                    match world::sign(client, bearer, key, Some(capability)).await {
                        Ok(()) => verdicts.push(false),
                        Err(error) => {
                            assert_eq!(world::status(&error), Some(403), "{error}");
                            verdicts.push(true);
                        }
                    }
                }
                if verdicts.windows(2).all(|two| two[0] == two[1]) {
                    break;
                }
                assert!(Instant::now() < deadline, "{verdicts:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

impl Worker {
    async fn work(mut self, controller: Arc<Identity>, keystore: String) -> Account {
        let (clients, bearer) = (self.clients.clone(), Arc::new(Identity::generate(&mut OsRng)));
        let client = &clients[self.node];
        while self.up().await {
            if self.account.keys.len() < self.most {
                let made = world::generate(client, &controller, &keystore, ED25519);
                if let Some(made) = self.call("generateKey", made).await {
                    self.account.keys.push((controller.clone(), made));
                }
            }
            let Some(key) = self.key() else { continue };
            for _ in 0..3 {
                self.call("sign", world::sign(client, &controller, &key, None))
                    .await;
            }
            let capability = world::delegate(&controller, &bearer, &key);
            let used = world::sign(client, &bearer, &key, Some(&capability));
            self.call("sign by delegation", used).await;
            if self.account.revoked.len() < self.most {
                let told = client.revoke(&controller, &capability);
                let doubted = (bearer.clone(), key.clone(), capability.clone());
                match self.call("revoke", told).await {
                    Some(_) => self.account.revoked.push(doubted),
                    None => {
                        self.account.in_doubt.push(doubted);
                        continue;
                    }
                }
            }
            // At once through every node that answers: whatever it says, it is not yes.
            let Some((key, capability)) = self.revoked() else {
                continue;
            };
            for (node, client) in clients.iter().enumerate() {
                let used = client.sign(&bearer, &key.id, b"no", Some(&capability)).await;
                if used.is_ok() {
                    let told = format!("node {node} accepted what was revoked at node {}", self.node);
                    self.account.errors.push(told);
                }
            }
        }
        self.account
    }

    /// The key that it made last; once it makes no more, any of them.
    fn key(&self) -> Option<Key> {
        let keys = &self.account.keys;
        self.pick(keys).map(|(_, key)| key.clone())
    }

    /// The same of what it revoked.
    fn revoked(&self) -> Option<(Key, Capability)> {
        let revoked = &self.account.revoked;
        self.pick(revoked)
            .map(|(_, key, capability)| (key.clone(), capability.clone()))
    }

    fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        match all.len() < self.most {
            true => all.last(),
            false => all.get(rand::thread_rng().gen_range(0..all.len())),
        }
    }

    /// Waits until the node is up; `false` when the load ends.
    async fn up(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => false,
            up = self.life.wait_for(|life| life.1) => up.is_ok(),
        }
    }

    /// One call to the worker's node. `None` after a failure, which is an error unless the node was down meanwhile.
    async fn call<T>(
        &mut self,
        what: &'static str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Option<T> {
        let before = *self.life.borrow();
        let began = Instant::now();
        let answer = call.await;
        let took = began.elapsed();
        let lived = before.1 && *self.life.borrow() == before;
        match answer {
            Ok(answer) => {
                self.account.answered += 1;
                self.account
                    .took
                    .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                let node = self.node;
                self.answered.send_modify(|answered| answered[node] += 1);
                if lived {
                    self.account.slowest = self.account.slowest.max((took, what));
                }
                Some(answer)
            }
            Err(error) => {
                if lived {
                    let told = format!("{what} at node {} after {took:?}: {error}", self.node);
                    self.account.errors.push(told);
                }
                None
            }
        }
    }
}
