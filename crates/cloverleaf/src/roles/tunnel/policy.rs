//! The agent policy: its file is read, watched, and read again while agents come and go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Watcher, load_agent_policy};
use model::AgentPolicy;
use tokio::sync::watch;

use super::server::usage;

/// The policy of a file, changed with it. What cannot be read or used is said, and the last good one stays.
pub(super) fn follow(path: &Path) -> anyhow::Result<watch::Receiver<Arc<AgentPolicy>>> {
    // Watched from before it is read.
    let watcher = Watcher::new(vec![path.to_owned()])?;
    let policy = load_agent_policy(path).map_err(usage)?;
    let (changed, current) = watch::channel(Arc::new(policy));
    drop(net::task::spawn("agent policy", reload(watcher, path.to_owned(), changed)));
    Ok(current)
}

async fn reload(mut watcher: Watcher, path: PathBuf, changed: watch::Sender<Arc<AgentPolicy>>) {
    loop {
        watcher.changed().await;
        let read = path.clone();
        match tokio::task::spawn_blocking(move || load_agent_policy(&read)).await {
            Ok(Ok(policy)) if **changed.borrow() == policy => {}
            Ok(Ok(policy)) => {
                tracing::info!(rules = policy.rules.len(), "a new agent policy");
                changed.send_replace(Arc::new(policy));
            }
            Ok(Err(problems)) => {
                for problem in problems.0 {
                    tracing::error!(%problem, "the agent policy cannot be used; the last good one stays");
                }
            }
            Err(error) => tracing::error!(%error, "reading the agent policy"),
        }
    }
}
