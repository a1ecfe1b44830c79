//! The two minutes of docs/kubernetes.md, line by line as they stand there, but for names that other tests use.

use std::net::SocketAddr;
use std::process::{Child, Stdio};

use testkit::client::Client;
use testkit::{Port, wait_until};

use crate::support::{NAME, SERVED_WITHIN, Stage, Use, file, read};

/// The commands of the first block of the page, without comments.
fn commands() -> Vec<String> {
    let page = read("docs/kubernetes.md");
    let (_, block) = page.split_once("```sh\n").expect("a block");
    let (block, _) = block.split_once("```").expect("its end");
    let lines = block.lines().map(|line| line.split(" #").next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Ends with the test.
struct Forwarding(Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command's words, for this test's namespace, repository and port.
fn words(line: &str, stage: &Stage, port: &Port) -> Vec<String> {
    let word = |word: &str| match word {
        "deploy/helm/cloverleaf" => file(word).display().to_string(),
        "8080:80" => format!("{port}:80"),
        _ => word.replace('\'', ""),
    };
    let mut words: Vec<String> = line.trim_end_matches(" &").split(' ').map(word).collect();
    let own = stage.namespace.name().to_owned();
    match words.iter().position(|word| word == "-n") {
        Some(at) => words[at + 1] = own,
        None => {
            // The command of a container ends those of kubectl.
            let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
            words.splice(end..end, ["-n".to_owned(), own]);
        }
    }
    words
}

#[test]
fn the_two_minutes_of_the_page_end_with_an_answer() {
    let Some(mut stage) = Stage::set("minutes", Use::shared) else { return };
    let (port, mut forwarding, mut answered) = (Port::reserve(), None, false);
    for line in commands() {
        let words = words(&line, &stage, &port);
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        match &*words[0] {
            // The image is there already.
            "cargo" | "kind" => {}
            "helm" => stage.helm(&arguments),
            "kubectl" if line.ends_with('&') => {
                let mut command = stage.access().command();
                let command = command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
                forwarding = Some(Forwarding(command.spawn().unwrap()));
            }
            "kubectl" => _ = stage.access().kubectl(&arguments, None).unwrap(),
            "curl" => {
                let address: SocketAddr = port.address();
                assert!(
                    line.ends_with("-H 'Host: echo.test' http://127.0.0.1:8080/hello"),
                    "{line}"
                );
                let request = "GET /hello HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\n\r\n";
                answered = wait_until(SERVED_WITHIN, || {
                    let client = Client::try_connect(address).ok();
                    let answer = client.and_then(|mut client| client.request(request).ok());
                    answer.is_some_and(|answer| answer.status == 200)
                });
                assert!(answered, "{}", stage.story());
            }
            _ => panic!("{line}"),
        }
    }
    assert!(answered && forwarding.is_some());
    stage.rolled_out(NAME);
}
