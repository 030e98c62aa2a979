//! `sanso node` and `sanso cluster`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cluster::file::{EXAMPLE, NodeFile};
use crate::cluster::member::Member;
use crate::dev::{StopSignals, size_limit_is_an_error};
use crate::disks::Disks;
use crate::http::Client;
use crate::telemetry;

/// Run a node of a cluster.
///
/// The nodes share a log in Kafka and a master dataset, keep the views between them, each part on
/// several nodes, and each answers any query. A node that is lost is replaced by those that hold
/// the same, and catches up when it is started again.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  sanso node --print-example > node1.toml\n  sanso node --config node1.toml"
)]
pub(crate) struct NodeArgs {
    /// The node's file.
    #[arg(long, value_name = "FILE", required_unless_present = "print_example")]
    config: Option<PathBuf>,
    /// Print an example of a node's file, all keys explained, and stop.
    #[arg(long)]
    print_example: bool,
    /// Log as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Runs the node until it is asked to stop, in as many lives as it takes.
pub(crate) async fn run_node(args: NodeArgs) -> anyhow::Result<ExitCode> {
    if args.print_example {
        std::io::stdout().write_all(EXAMPLE.as_bytes()).context("print the example")?;
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start(args.json);
    let mut stop_signals = StopSignals::listen()?;
    let _refused = size_limit_is_an_error()?;
    let file = NodeFile::read(&args.config.context("a node's file is needed: --config node.toml")?)?;
    let metrics = sanso_serving::metrics::install().context("install the metrics recorder")?;
    let disks = Disks::open(&file.settings, &file.own.data)?;
    let mut declared = None;
    loop {
        let member = tokio::select! {
            member = Member::start(&file, &metrics, &disks, declared.take()) => member?,
            () = stop_signals.received() => {
                // What the start waits for may never come; a kill at any moment loses nothing.
                tracing::info!("stopped while it started");
                std::process::exit(0);
            }
        };
        match member.address {
            Some(address) => tracing::info!(address = %format_args!("http://{address}/"), "sanso is ready"),
            None => tracing::info!("sanso runs, and serves no HTTP"),
        }
        let over = tokio::select! {
            () = stop_signals.received() => true,
            () = member.superseded() => false,
        };
        tracing::info!(over, "stopping");
        declared = Some(member.declared());
        member.stop().await;
        if over {
            return Ok(ExitCode::SUCCESS);
        }
        tracing::warn!("the cluster went on without this node: it begins anew, with empty memory");
    }
}

/// Show a cluster, empty a node of it for maintenance, or change who votes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sanso cluster\n  sanso cluster drain 2\n  sanso cluster voters\n  \
                  sanso cluster voters 1,2,4\n\nExit code: 0 shown or done, 2 refused or no answer.")]
pub(crate) struct ClusterArgs {
    /// A node to ask; any.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:7070",
        env = "SANSO_URL",
        global = true
    )]
    to: String,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Move everything that a node holds to others.
    Drain {
        /// The node's number.
        node: u16,
    },
    /// Use a node again that was emptied.
    Fill {
        /// The node's number.
        node: u16,
    },
    /// Show who votes on who holds what, or change it while the cluster runs.
    ///
    /// Three voters go on without one, five without two. The nodes' files say who votes when the cluster
    /// is founded; after that, what is agreed counts. A voter that is lost for good is replaced by naming
    /// another node in its place. One that has lost its folder takes no part, since it could vote twice:
    /// take it out, then add it again.
    #[command(after_help = "Examples:\n  sanso cluster voters                  who votes\n  \
                      sanso cluster voters 1,2,4            node 4 in the place of node 3\n  \
                      sanso cluster voters 1,2,3,4,5        five voters\n  \
                      sanso cluster voters 1,2 --force      fewer than three where there were three")]
    Voters {
        /// The nodes that are to vote: an odd number.
        #[arg(value_name = "NODE", value_delimiter = ',')]
        nodes: Vec<u16>,
        /// Also fewer than three where there were three.
        #[arg(long, requires = "nodes")]
        force: bool,
    },
}

/// Asks a node and prints what it says.
pub(crate) async fn run(args: ClusterArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.to)?;
    let text = match args.action {
        Some(Action::Drain { node }) => {
            client.post(&["v1", "cluster", "nodes", &node.to_string(), "drain"]).await?;
            format!("node {node} is being emptied; sanso cluster shows how far it is\n")
        }
        Some(Action::Fill { node }) => {
            client.post(&["v1", "cluster", "nodes", &node.to_string(), "fill"]).await?;
            format!("node {node} is used again\n")
        }
        Some(Action::Voters { nodes, force }) => {
            let answer = match nodes.is_empty() {
                true => client.get(&["v1", "cluster", "voters"]).await?,
                false => client.change_voters(&nodes, force).await?,
            };
            if args.json { format!("{answer}\n") } else { show_voters(&answer)? }
        }
        None => {
            let answer = client.get(&["v1", "cluster"]).await?;
            if args.json { format!("{answer}\n") } else { show(&answer)? }
        }
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // A pager or `head` that has seen enough is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("print the cluster")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(answer: &Value) -> anyhow::Result<String> {
    let nodes = answer["nodes"].as_array().context("the answer has no nodes")?;
    let partitions = answer["partitions"].as_array().context("the answer has no partitions")?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |value: &Value| {
        let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() { "–".to_owned() } else { all.iter().map(text).collect::<Vec<_>>().join(" ") }
    };
    let mut rows = vec![["NODE", "STANDING", "PRIMARIES", "REPLICAS", "ROLES", "PEER"].map(str::to_owned)];
    for node in nodes {
        let mut standing = text(&node["standing"]);
        if node["draining"] == true {
            standing.push_str(", draining");
        }
        if node["leads_control"] == true {
            standing.push_str(", leads");
        }
        rows.push([
            text(&node["node"]),
            standing,
            text(&node["primaries"]),
            text(&node["replicas"]),
            list(&node["roles"]),
            text(&node["peer"]),
        ]);
    }
    let mut out = table(&rows);
    let mut rows =
        vec![["PARTITION", "EPOCH", "PRIMARY", "IN SYNC", "CATCHING UP", "HERE: SHOWN"].map(str::to_owned)];
    for partition in partitions {
        let here = &partition["here"];
        let shown = match here["not_shown"].as_u64() {
            None => "–".to_owned(),
            Some(0) => text(&here["shown"]),
            Some(more) => format!("{}, {more} to come", text(&here["shown"])),
        };
        rows.push([
            text(&partition["partition"]),
            text(&partition["epoch"]),
            partition["primary"].as_u64().map_or_else(|| "none".to_owned(), |node| node.to_string()),
            list(&partition["in_sync"]),
            list(&partition["catching_up"]),
            shown,
        ]);
    }
    out.push('\n');
    out.push_str(&table(&rows));
    out.push_str(&show_views(answer));
    Ok(out)
}

/// Shows the versions of views, while there are several of one or not all nodes are as far as others; and
/// whose files are refused.
fn show_views(answer: &Value) -> String {
    let nodes = |value: &Value| {
        let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            "–".to_owned()
        } else {
            all.iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![
        ["VIEW", "VERSION", "DECLARED BY", "FED BY", "HELD BY", "ANSWERS ON", "WAITS FOR"].map(str::to_owned),
    ];
    for view in answer["views"].as_array().into_iter().flatten() {
        rows.push([
            text(&view["view"]),
            text(&view["version"]).chars().take(8).collect(),
            nodes(&view["declared_by"]),
            nodes(&view["fed_by"]),
            nodes(&view["held_by"]),
            nodes(&view["served_by"]),
            nodes(&view["awaits"]),
        ]);
    }
    let mut out = format!("\n{}", table(&rows));
    for (node, application) in answer["applications"].as_object().into_iter().flatten() {
        if let Some(why) = application["refuses"].as_str() {
            out.push_str(&format!("node {node} goes on with its old application: {why}\n"));
        }
        if application["heard"] == false {
            out.push_str(&format!("node {node} does not say what it declares\n"));
        }
    }
    out
}

fn show_voters(answer: &Value) -> anyhow::Result<String> {
    let nodes = answer["nodes"].as_array().context("the answer has no nodes")?;
    let mut rows = vec![["NODE", "CONTROL", "APPLIED"].map(str::to_owned)];
    for node in nodes {
        let mut part = node["part"].as_str().unwrap_or("unknown").to_owned();
        if node["node"] == answer["leader"] {
            part.push_str(", leads");
        }
        let applied = node["applied"].as_u64().map_or_else(|| "–".to_owned(), |applied| applied.to_string());
        rows.push([node["node"].to_string(), part, applied]);
    }
    let mut out = table(&rows);
    if answer["leader"].is_null() {
        out.push_str("nobody leads: most of those who vote don't answer\n");
    }
    if let Some(warning) = answer["warning"].as_str() {
        out.push_str(&format!("warning: {warning}\n"));
    }
    Ok(out)
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}
