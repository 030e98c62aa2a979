//! The walls between packages: who may depend on whom.
//!
//! Layers depend on `common/*`, never on each other; `common` knows no layer;
//! only `deploy` assembles; `e2e` drives the built binary from outside and
//! shares no code with it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every package with all it may depend on within the workspace.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sanso-reading", &[]),
    ("sanso-log", &[]),
    ("sanso-schema", &["sanso-log"]),
    ("sanso-state", &[]),
    ("sanso-view", &["sanso-state"]),
    ("sanso-core", &["sanso-state"]),
    ("sanso-control", &["sanso-core"]),
    // Which nodes there are, not what they say.
    ("sanso-peer", &["sanso-core"]),
    ("sanso-cluster", &["sanso-block", "sanso-control", "sanso-core", "sanso-peer", "sanso-state"]),
    ("sanso-lineage", &[]),
    ("sanso-runs", &["sanso-state"]),
    ("sanso-block", &["sanso-state"]),
    ("sanso-dataset", &["sanso-block", "sanso-state"]),
    ("sanso-catalog", &["sanso-state", "sanso-view"]),
    ("sanso-batch", COMMON),
    ("sanso-speed", COMMON),
    ("sanso-serving", COMMON),
    (
        "sanso",
        &[
            "sanso-reading",
            "sanso-log",
            "sanso-schema",
            "sanso-state",
            "sanso-view",
            "sanso-core",
            "sanso-cluster",
            "sanso-block",
            "sanso-runs",
            "sanso-dataset",
            "sanso-catalog",
            "sanso-batch",
            "sanso-speed",
            "sanso-serving",
            "sanso-drill",
        ],
    ),
    (
        "sanso-law",
        &[
            "sanso-log",
            "sanso-state",
            "sanso-view",
            "sanso-core",
            "sanso-cluster",
            "sanso-runs",
            "sanso-dataset",
            "sanso-catalog",
            "sanso-batch",
            "sanso-speed",
        ],
    ),
    (
        "sanso-bench",
        &[
            "sanso-block",
            "sanso-broker",
            "sanso-cluster",
            "sanso-core",
            "sanso-e2e",
            "sanso-log",
            "sanso-state",
        ],
    ),
    // It sees a cluster from outside only, and starts the brokers of its log.
    ("sanso-drill", &["sanso-broker"]),
    ("sanso-drill-redis", &["sanso-drill"]),
    ("sanso-e2e", &[]),
    // Wherever bytes from outside are read.
    (
        "sanso-fuzz",
        &[
            "sanso-log",
            "sanso-reading",
            "sanso-schema",
            "sanso-state",
            "sanso-view",
            "sanso-dataset",
            "sanso-serving",
        ],
    ),
    (TEST_SUPPORT[0], &[]),
    (TEST_SUPPORT[1], &[]),
];

/// What any package's tests may use: they start servers and know nothing of Sanso.
const TEST_SUPPORT: [&str; 2] = ["sanso-broker", "sanso-bucket"];

/// What a layer may depend on.
const COMMON: &[&str] = &[
    "sanso-log",
    "sanso-state",
    "sanso-view",
    "sanso-core",
    "sanso-block",
    "sanso-dataset",
    "sanso-catalog",
    "sanso-lineage",
];

type Edges = BTreeMap<String, BTreeSet<String>>;

fn workspace_edges() -> Edges {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(sanso_e2e::package())
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("parse metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let edges = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let for_tests = |dependency: &&serde_json::Value| {
            dependency["kind"] == "dev" && TEST_SUPPORT.iter().any(|name| dependency["name"] == *name)
        };
        let built = dependencies.iter().filter(|dependency| !for_tests(dependency));
        let to = built.map(name).filter(|dependency| ours.contains(dependency));
        (name(package), to.collect())
    });
    edges.collect()
}

/// Lists the edges that are not allowed, and packages nobody has placed.
fn forbidden(edges: &Edges) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut found = Vec::new();
    for (package, dependencies) in edges {
        match allowed.get(package.as_str()) {
            None => found.push(format!("{package} has no place in the table of allowed edges")),
            Some(allowed) => found.extend(
                dependencies
                    .iter()
                    .filter(|dependency| !allowed.contains(&dependency.as_str()))
                    .map(|dependency| format!("{package} must not depend on {dependency}")),
            ),
        }
    }
    found
}

#[test]
fn packages_depend_only_where_the_architecture_allows() {
    assert_eq!(forbidden(&workspace_edges()), Vec::<String>::new());
}

#[test]
fn a_layer_that_reaches_into_another_is_found() {
    let mut edges = workspace_edges();
    edges.entry("sanso-serving".into()).or_default().insert("sanso-speed".into());
    assert_eq!(forbidden(&edges), ["sanso-serving must not depend on sanso-speed"]);
}
