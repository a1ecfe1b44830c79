//! A crowd of objects for the benchmark, through the API server as anybody makes them: thousands of Ingresses with
//! their Services and EndpointSlices, changes of endpoints at a rate, and how long one change takes to be served.
//!
//! Run by `cargo xtask bench kubernetes`. Must not know which proxy listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Requests to the API server under way at once.
const AT_ONCE: usize = 64;
const NAMESPACE: &str = "crowd";
const PORT: u16 = 8080;
/// A change that is not served by then is a failure.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at whether it is served.
const LOOK_EVERY: Duration = Duration::from_millis(2);

#[derive(Parser)]
struct Cli {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make the objects
    Populate {
        #[arg(long)]
        class: String,
        #[arg(long)]
        controller: String,
        #[arg(long, default_value_t = 5000)]
        ingresses: usize,
        #[arg(long, default_value_t = 10)]
        endpoints: usize,
        /// Where the endpoints of the first and the last Ingress really are
        #[arg(long)]
        live: Ipv4Addr,
    },
    /// Move the first Ingress's Service between two addresses and print how long each change took, in milliseconds
    Latency {
        #[arg(long)]
        gateway: SocketAddr,
        /// Given twice
        #[arg(long)]
        live: Vec<Ipv4Addr>,
        #[arg(long, default_value_t = 40)]
        rounds: usize,
    },
    /// Change endpoints of Services other than the first at a rate
    Churn {
        #[arg(long, default_value_t = 5000)]
        ingresses: usize,
        #[arg(long, default_value_t = 10)]
        endpoints: usize,
        #[arg(long, default_value_t = 100)]
        rate: u32,
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let cli = Cli::parse();
    let kubeconfig = Kubeconfig::read_from(&cli.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    match cli.what {
        What::Populate { class, controller, ingresses, endpoints, live } => {
            populate(&client, (&class, &controller), ingresses, endpoints, live).await
        }
        What::Latency { gateway, live, rounds } => match live.as_slice() {
            [one, other] => latency(&client, gateway, [*one, *other], rounds).await,
            _ => Err("expected two addresses".into()),
        },
        What::Churn { ingresses, endpoints, rate, seconds } => {
            churn(&client, ingresses, endpoints, rate, seconds).await
        }
    }
}

async fn populate(
    client: &Client,
    (class, controller): (&str, &str),
    ingresses: usize,
    endpoints: usize,
    live: Ipv4Addr,
) -> Outcome<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    create(&namespaces, json!({ "metadata": { "name": NAMESPACE } })).await?;
    let classes: Api<IngressClass> = Api::all(client.clone());
    let spec = json!({ "controller": controller });
    create(&classes, json!({ "metadata": { "name": class }, "spec": spec })).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let routes: Api<Ingress> = Api::namespaced(client.clone(), NAMESPACE);
    let one = |number: usize| {
        let (services, slices, routes) = (&services, &slices, &routes);
        async move {
            let is_live = number == 0 || number + 1 == ingresses;
            let addresses: Vec<Ipv4Addr> = if is_live {
                vec![live]
            } else {
                (0..endpoints).map(|at| dead(number, at)).collect()
            };
            create(services, service(number)).await?;
            create(slices, slice(number, &addresses)).await?;
            create(routes, ingress(number, class)).await
        }
    };
    stream::iter((0..ingresses).map(one))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// An address that nobody asks for anything.
fn dead(number: usize, at: usize) -> Ipv4Addr {
    let host = u32::try_from(number * 64 + at).unwrap_or(u32::MAX) & 0x003f_ffff;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 1)) + host)
}

async fn create<K>(api: &Api<K>, object: Value) -> Outcome<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn service(number: usize) -> Value {
    let ports = json!([{ "name": "http", "port": 80, "targetPort": PORT }]);
    json!({
        "metadata": { "name": format!("s{number}") },
        "spec": { "clusterIP": "None", "ports": ports },
    })
}

fn slice(number: usize, addresses: &[Ipv4Addr]) -> Value {
    json!({
        "metadata": {
            "name": format!("s{number}-1"),
            "labels": { "kubernetes.io/service-name": format!("s{number}") },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }],
        "endpoints": endpoints(addresses),
    })
}

fn endpoints(addresses: &[Ipv4Addr]) -> Value {
    let one = |address: &Ipv4Addr| {
        json!({
            "addresses": [address.to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
        })
    };
    addresses.iter().map(one).collect()
}

fn ingress(number: usize, class: &str) -> Value {
    let backend =
        json!({ "service": { "name": format!("s{number}"), "port": { "name": "http" } } });
    json!({
        "metadata": { "name": format!("i{number}") },
        "spec": {
            "ingressClassName": class,
            "rules": [{
                "host": format!("h{number}.crowd.test"),
                "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] },
            }],
        },
    })
}

async fn replace(
    slices: &Api<EndpointSlice>,
    number: usize,
    addresses: &[Ipv4Addr],
) -> Outcome<()> {
    let patch = json!({ "endpoints": endpoints(addresses) });
    slices.patch(&format!("s{number}-1"), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

async fn latency(
    client: &Client,
    gateway: SocketAddr,
    live: [Ipv4Addr; 2],
    rounds: usize,
) -> Outcome<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    for round in 0..rounds {
        let address = live[round % 2];
        replace(&slices, 0, &[address]).await?;
        let start = Instant::now();
        while serving(gateway).await != Some(IpAddr::V4(address)) {
            if start.elapsed() > SERVED_WITHIN {
                return Err(format!("round {round}: not served within {SERVED_WITHIN:?}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        println!("{:.2}", start.elapsed().as_secs_f64() * 1000.0);
        // Not in step with anybody's window of coalescing.
        tokio::time::sleep(Duration::from_millis(300 + (round as u64 * 37) % 200)).await;
    }
    Ok(())
}

/// Which of the live endpoints answers a request for the first Ingress: it says its own address.
async fn serving(gateway: SocketAddr) -> Option<IpAddr> {
    let exchange = async {
        let mut socket = TcpStream::connect(gateway).await.ok()?;
        let request = b"GET / HTTP/1.1\r\nHost: h0.crowd.test\r\nConnection: close\r\n\r\n";
        socket.write_all(request).await.ok()?;
        let mut answer = Vec::new();
        socket.take(64 * 1024).read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // As `cloverleaf echo` has it.
        let (_, rest) = answer.split_once("\"local_address\":")?;
        let local: SocketAddr = rest.split('"').nth(1)?.parse().ok()?;
        Some(local.ip())
    };
    tokio::time::timeout(Duration::from_secs(2), exchange).await.ok().flatten()
}

async fn churn(
    client: &Client,
    ingresses: usize,
    endpoints: usize,
    rate: u32,
    seconds: u32,
) -> Outcome<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let spread = ingresses.saturating_sub(2).max(1);
    let changes = (0..u64::from(rate) * u64::from(seconds)).map(|at| {
        let at = usize::try_from(at).unwrap_or(0);
        // Strides through all of them; the first and the last stay as they are.
        let number = 1 + (at * 7919) % spread;
        let turned = (0..endpoints).map(|e| dead(number, (e + at) % 64)).collect::<Vec<_>>();
        (number, turned)
    });
    let (slices, start) = (&slices, Instant::now());
    let mut under_way = stream::FuturesUnordered::new();
    for (number, addresses) in changes {
        tick.tick().await;
        under_way.push(async move { replace(slices, number, &addresses).await });
        while under_way.len() >= AT_ONCE {
            under_way.next().await.transpose()?;
        }
    }
    while let Some(done) = under_way.next().await {
        done?;
    }
    println!("{:.1}", start.elapsed().as_secs_f64());
    Ok(())
}
