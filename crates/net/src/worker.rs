//! Worker threads: each runs one single-threaded runtime on which everything of a connection stays.
//!
//! The control side hands a worker [`Job`]s (start serving this socket, drain that one); a job runs on the worker's
//! thread and may start local tasks. Must not know what the jobs do.

use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

/// Jobs that wait for a worker; the control side waits beyond it.
const JOBS_MAX: usize = 256;

/// Runs once on the worker's thread, within its runtime.
pub type Job = Box<dyn FnOnce() + Send>;

/// The worker threads of a process.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

/// A worker thread is gone: it panicked, which is a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker thread {index} is gone")]
pub struct WorkerGone {
    /// Which one.
    pub index: usize,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The kernel's, where it gives no thread or no epoll.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let workers = (0..count.max(1)).map(Worker::start).collect::<Result<_, _>>()?;
        Ok(Self { workers })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Hands one job to a worker. Dropped while waiting for a place, the job is not run.
    ///
    /// # Errors
    /// [`WorkerGone`] where the thread has ended.
    pub async fn run(&self, index: usize, job: Job) -> Result<(), WorkerGone> {
        let worker = self.workers.get(index).ok_or(WorkerGone { index })?;
        worker.jobs.send(job).await.map_err(|_| WorkerGone { index })
    }

    /// Tells all workers to end: they do when the jobs that they have been given are started; tasks that still run
    /// then are dropped. Waits for the threads.
    pub fn stop(self) {
        let (jobs, threads): (Vec<_>, Vec<_>) =
            self.workers.into_iter().map(|w| (w.jobs, w.thread)).unzip();
        drop(jobs);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked; this is a bug");
            }
        }
    }
}

impl Worker {
    fn start(index: usize) -> std::io::Result<Self> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(JOBS_MAX);
        let thread =
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let runtime = match Builder::new_current_thread()
                    .enable_all()
                    .event_interval(61)
                    .build_local(LocalOptions::default())
                {
                    Ok(runtime) => runtime,
                    Err(error) => return tracing::error!(%error, "starting a worker's runtime"),
                };
                runtime.block_on(async move {
                    while let Some(job) = inbox.recv().await {
                        job();
                    }
                });
            })?;
        Ok(Self { jobs, thread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_on_their_thread_and_may_start_local_tasks() {
        let workers = Workers::start(2).unwrap();
        let (sender, mut receiver) = mpsc::channel(2);
        for index in 0..workers.count() {
            let sender = sender.clone();
            let job = Box::new(move || {
                let not_send = std::rc::Rc::new(index);
                crate::task::spawn_local("test", async move {
                    let name = std::thread::current().name().map(str::to_owned);
                    sender.send((*not_send, name)).await.unwrap();
                });
            });
            workers.run(index, job).await.unwrap();
        }
        let mut seen = [receiver.recv().await.unwrap(), receiver.recv().await.unwrap()];
        seen.sort();
        assert_eq!(seen[0], (0, Some("worker-0".to_owned())));
        assert_eq!(seen[1], (1, Some("worker-1".to_owned())));
        workers.stop();
    }
}
