//! One run of the client's program: what it said, and what everything used while it counted. The program says when that
//! begins and ends. Must not know what a case makes of it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    CORES,
    awake::Awake,
    ends::Ends,
    field::{Field, HUB},
};
use crate::bench::{
    measure::{self, Memory},
    process::{Server, pinned},
};

const FOREIGN_SECONDS_MIN: f64 = 0.5;

/// How long the machine has to do how little to be quiet.
const QUIET_WINDOW: Duration = Duration::from_secs(1);
const QUIET_CORES: f64 = 0.2;

/// What is asked of a way.
pub(super) struct Asked {
    pub(super) what: &'static str,
    /// A load of `tests/konnectivity/load/load.go`.
    pub(super) load: &'static str,
    /// The target's port.
    pub(super) port: u16,
    /// Another target's port, for a load that has two.
    pub(super) beside: Option<u16>,
    /// Whether no core may go to sleep meanwhile.
    pub(super) awake: bool,
    pub(super) more: &'static [&'static str],
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What the client said, by name.
    pub(super) said: BTreeMap<String, f64>,
    /// How long it counted.
    pub(super) seconds: f64,
    /// Processor seconds meanwhile.
    pub(super) client: f64,
    pub(super) server: f64,
    pub(super) agent: f64,
    pub(super) front: f64,
    /// What server, agent and `tunnel forward` held before the client came.
    pub(super) rest: [Memory; 3],
    /// The same when it began to count.
    pub(super) held: [Memory; 3],
    /// How many cores did what is none of this. Of less than half a second nothing can be said.
    pub(super) foreign_cores: Option<f64>,
}

impl Seen {
    /// A figure of the client.
    pub(super) fn said(&self, name: &str) -> Result<f64> {
        self.said.get(name).copied().with_context(|| format!("the client said no {name}"))
    }
}

/// The client is ended with this value, whatever happens.
struct Client(Child);

impl Client {
    fn succeeded(&mut self) -> Result<()> {
        let status = self.0.wait().context("wait for the client")?;
        let mut words = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut words).context("read the client's error")?;
        }
        ensure!(status.success(), "the client: {status}: {}", words.trim_end());
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs clients over the same ends.
pub(super) struct Runner<'r> {
    pub(super) field: &'r Field,
    pub(super) ends: &'r Ends,
    /// Of load that counts.
    pub(super) seconds: u64,
    pub(super) ticks_a_second: f64,
}

impl Runner<'_> {
    /// Runs one. It ends itself after two minutes.
    pub(super) fn run(&self, asked: &Asked) -> Result<Seen> {
        let rest = memory(self.ends);
        let _awake = asked.awake.then(Awake::keep).transpose()?;
        let mut client = Client(
            pinned(&self.command(asked)?, CORES)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("start the client")?,
        );
        let pid = client.0.id();
        let (mut moments, mut held, mut said) = (Vec::new(), rest, None);
        for line in BufReader::new(client.0.stdout.take().context("piped above")?).lines() {
            match line.context("read what the client says")?.as_str() {
                "begin" => {
                    moments.push(Moment::now(pid, self.ends)?);
                    held = memory(self.ends);
                    // One that holds connections waits for this.
                    drop(client.0.stdin.take());
                }
                "end" => moments.push(Moment::now(pid, self.ends)?),
                line => said = Some(serde_json::from_str(line).context("what the client says")?),
            }
        }
        client.succeeded()?;
        let said = said.context("the client gave no figures")?;
        let [begin, end] = moments.as_slice() else { bail!("the client counted nothing") };
        Ok(Seen { said, rest, held, ..self.between(begin, end) })
    }

    /// Returns once the machine does little, ends that rest included, or after so long.
    pub(super) fn wait_for_quiet(&self, at_most: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < at_most {
            let before = measure::machine()?;
            thread::sleep(QUIET_WINDOW);
            let seconds = (measure::machine()? - before) as f64 / self.ticks_a_second;
            if seconds < QUIET_CORES * QUIET_WINDOW.as_secs_f64() {
                break;
            }
        }
        Ok(())
    }

    fn command(&self, asked: &Asked) -> Result<Command> {
        let (field, ends) = (self.field, self.ends);
        let program = field.client.to_str().context("the path of the client")?;
        let mut command = field.network.command(HUB, program);
        command.arg(asked.load).args(ends.client_flags(field));
        command.arg(format!("-target={}", ends.target(field, asked.port)));
        if let Some(port) = asked.beside {
            command.arg(format!("-beside-target={}", ends.target(field, port)));
        }
        command.arg(format!("-seconds={}", self.seconds)).args(asked.more);
        Ok(command)
    }

    /// What was used between two moments.
    fn between(&self, begin: &Moment, end: &Moment) -> Seen {
        let seconds = end.at.duration_since(begin.at).as_secs_f64();
        let cpu = |part: fn(&Moment) -> u64| {
            part(end).saturating_sub(part(begin)) as f64 / self.ticks_a_second
        };
        let foreign = cpu(|moment| moment.all) - cpu(|moment| moment.own);
        Seen {
            seconds,
            client: cpu(|moment| moment.client),
            server: cpu(|moment| moment.server),
            agent: cpu(|moment| moment.agent),
            front: cpu(|moment| moment.front),
            foreign_cores: (seconds >= FOREIGN_SECONDS_MIN).then_some(foreign.max(0.0) / seconds),
            ..Seen::default()
        }
    }
}

/// Processor time of everything so far, in ticks.
struct Moment {
    at: Instant,
    client: u64,
    server: u64,
    agent: u64,
    front: u64,
    /// This program's and all that it has started.
    own: u64,
    /// The machine's.
    all: u64,
}

impl Moment {
    fn now(client: u32, ends: &Ends) -> Result<Moment> {
        let of = |server: &Option<Server>| server.as_ref().map_or(0, |server| used(server.pid()));
        Ok(Moment {
            at: Instant::now(),
            client: used(client),
            server: of(&ends.server),
            agent: of(&ends.agent),
            front: of(&ends.front),
            own: used(std::process::id()),
            all: measure::machine()?,
        })
    }
}

fn used(pid: u32) -> u64 {
    let ticks = measure::cpu(pid);
    ticks.user + ticks.system
}

fn memory(ends: &Ends) -> [Memory; 3] {
    [&ends.server, &ends.agent, &ends.front].map(|server| {
        server.as_ref().map_or(Memory::default(), |server| measure::memory(server.pid()))
    })
}
