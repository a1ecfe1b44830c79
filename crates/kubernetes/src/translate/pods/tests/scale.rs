//! How long many Pods take. Prints; decides nothing.

use std::time::Instant;

use super::*;

#[test]
fn many_pods() {
    const NAMESPACES: u32 = 500;
    const PODS_PER_NAMESPACE: u32 = 10;
    let mut store = Store::default();
    for tenant in 0..NAMESPACES {
        let name = format!("team{tenant}");
        let hosts = format!(r#"{{"{name}.test": {{}}, "{name}.example.net": {{}}}}"#);
        store.apply(namespace(&name, tenant.into(), &hosts), &mut Changed::default());
        for index in 0..PODS_PER_NAMESPACE {
            let number = u8::try_from(index).unwrap();
            let paths = path(if index % 2 == 0 { "/web" } else { "/api" });
            let mut pod = pod(&name, &format!("web{index}"), number, &paths);
            pod.address =
                Some((0x0A00_0000 + tenant * PODS_PER_NAMESPACE + index).to_be_bytes().into());
            store.apply(pod.into(), &mut Changed::default());
        }
    }
    let mut translator =
        Translator::new(Options { pods: Some(PodOptions::default()), ..Options::default() });
    for _ in 0..3 {
        let begun = Instant::now();
        let translation = translator.translate(&store, Changed::everything());
        let rules = translation.rules.rules.len();
        println!(
            "{} Pods of {NAMESPACES} Namespaces: {rules} rules in {:?}",
            NAMESPACES * PODS_PER_NAMESPACE,
            begun.elapsed()
        );
    }
}
