//! `GET /v1/datasets`: the lineage of everything: what each dataset is made of, how, where its parts are, and what it
//! would cost to have them again.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use futures::future::try_join_all;
use sanso_block::{BlockId, BlockNode, HeldBlock, NodeBlocks};
use sanso_dataset::{DatasetError, Manifest, ViewId};
use sanso_view::{RecordFormat, Source, View};
use serde_json::{Value, json};

use crate::params::Params;
use crate::problem::Problem;
use crate::service::Shared;

/// What nodes say of their blocks: each block by name, with the nodes that have it.
struct Blocks {
    places: BTreeMap<BlockId, Vec<(BlockNode, HeldBlock)>>,
    nodes: Vec<(BlockNode, Result<NodeBlocks, String>)>,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::read(&uri, &["parts"])?;
    let parts = params.word("parts", &[("true", true), ("false", false)])?.unwrap_or(false);
    let blocks = Blocks::gathered(shared.context.dataset.all_blocks().await);
    let catalog = shared.context.catalog.current();
    let of_source = |source: &Arc<Source>| {
        let (shared, source, blocks) = (Arc::clone(&shared), Arc::clone(source), &blocks);
        let views: Vec<Arc<View>> =
            catalog.serving_views().filter(|view| view.source.name == source.name).cloned().collect();
        async move { of_source(&shared, &source, &views, blocks, parts).await }
    };
    let of_sources = try_join_all(catalog.sources.values().map(of_source)).await;
    let of_sources = of_sources.map_err(|error| Problem::dataset("read the dataset", &error))?;
    let silent = blocks.nodes.iter().filter_map(|(node, said)| {
        said.as_ref().err().map(|error| json!({ "node": node.0, "error": error }))
    });
    super::json(&json!({
        "datasets": of_sources.concat(),
        "nodes": blocks.nodes.iter().map(|(node, _)| node.0).collect::<Vec<_>>(),
        "silent": silent.collect::<Vec<_>>(),
    }))
}

impl Blocks {
    fn gathered(nodes: Vec<(BlockNode, Result<NodeBlocks, String>)>) -> Self {
        let mut places: BTreeMap<BlockId, Vec<(BlockNode, HeldBlock)>> = BTreeMap::new();
        for (node, said) in &nodes {
            for block in said.iter().flat_map(|said| &said.blocks) {
                places.entry(block.id).or_default().push((*node, *block));
            }
        }
        Self { places, nodes }
    }

    fn places(&self, id: BlockId) -> Vec<Value> {
        let places = self.places.get(&id).into_iter().flatten();
        let place = |(node, block): &(BlockNode, HeldBlock)| json!({ "node": node.0, "in": if block.in_memory { "memory" } else { "disk" }, "bytes": block.bytes });
        places.map(place).collect()
    }

    fn figures(&self, source: &str) -> Vec<Value> {
        let said = self.nodes.iter().filter_map(|(node, said)| Some((node, said.as_ref().ok()?)));
        let figures = said.filter_map(|(node, said)| Some((node, said.tables.get(source)?)));
        figures.map(|(node, figures)| json!({ "node": node.0, "figures": figures })).collect()
    }
}

/// Returns the datasets of a source, each after those that it is made of.
async fn of_source(
    shared: &Shared,
    source: &Arc<Source>,
    views: &[Arc<View>],
    blocks: &Blocks,
    parts: bool,
) -> Result<Vec<Value>, DatasetError> {
    let dataset = &shared.context.dataset;
    let manifest = dataset.manifest(&source.name).await?;
    let manifest = manifest.as_deref();
    let mut all =
        vec![of_log(source), of_segments(source, manifest), of_newest(source, manifest, blocks, parts)];
    for view in views {
        let id = ViewId {
            source: &source.name,
            name: &view.name,
            fingerprint: view.fingerprint,
            kinds: &view.kinds,
        };
        let published = match manifest {
            // One that is being published is not there yet.
            Some(manifest) => match dataset.published(id, manifest.version).await {
                Err(DatasetError::Missing { .. }) => None,
                published => Some(published?),
            },
            None => None,
        };
        let tables = view.tables().map(|table| format!("table {table}"));
        all.push(json!({
            "name": view.name, "kind": "view", "source": source.name,
            "made_of": Vec::from_iter([newest(source)].into_iter().chain(tables)),
            "by": view.sql, "version": published.as_ref().map(|published| published.version),
            "parts": view.partitions, "rows": null,
            "bytes": published.map(|published| {
                published.blocks.iter().flat_map(|block| block.files()).map(|file| file.bytes).sum::<u64>()
            }),
            "storage": view.storage.name(), "replicas": "as view partitions",
        }));
    }
    Ok(all)
}

fn newest(source: &Source) -> String {
    format!("{}.newest", source.name)
}

fn of_log(source: &Source) -> Value {
    let made_of = match &source.format {
        RecordFormat::Windows { view } => vec![view.clone()],
        _ => Vec::new(),
    };
    json!({
        "name": format!("topic {}", source.topic), "kind": "log", "source": source.name, "made_of": made_of,
        "by": if made_of.is_empty() { "producers" } else { "closed windows" }, "version": null,
        "parts": source.partitions, "rows": null, "bytes": null, "storage": "log", "replicas": "the log's",
    })
}

fn of_segments(source: &Source, manifest: Option<&Manifest>) -> Value {
    let files = manifest.map_or(&[][..], |manifest| &manifest.segments);
    json!({
        "name": format!("{}.segments", source.name), "kind": "segments", "source": source.name,
        "made_of": [format!("topic {}", source.topic)],
        "by": format!("archive {} offsets a file", source.segment_size),
        "version": manifest.map(|manifest| manifest.version), "parts": files.len(),
        "rows": files.iter().map(|file| file.rows).sum::<u64>(),
        "bytes": files.iter().map(|file| file.bytes).sum::<u64>(),
        "storage": "object store", "replicas": "the store's",
    })
}

fn of_newest(source: &Source, manifest: Option<&Manifest>, blocks: &Blocks, parts: bool) -> Value {
    let files = manifest.map_or(&[][..], |manifest| &manifest.newest);
    let places = |content| blocks.places(BlockId(content));
    let copies: Vec<usize> = files.iter().map(|file| places(file.content).len()).collect();
    let part = |file: &sanso_dataset::NewestFile| {
        json!({
            "partition": file.partition.0, "date": file.date.map(|date| sanso_dataset::date_label(Some(date))),
            "rows": file.rows, "bytes": file.bytes, "made_from": file.fingerprint.to_string(),
            "places": places(file.content),
        })
    };
    json!({
        "name": newest(source), "kind": "newest-version table", "source": source.name,
        "made_of": [format!("{}.segments", source.name)],
        "by": "keep the newest version of each reading, by log partition and date",
        "version": manifest.map(|manifest| manifest.version), "parts": files.len(),
        "rows": files.iter().map(|file| file.rows).sum::<u64>(),
        "bytes": files.iter().map(|file| file.bytes).sum::<u64>(),
        "storage": format!("object store; at hand: {}", source.storage.level),
        "replicas": source.storage.replicas.to_string(),
        "parts_at_hand": copies.iter().filter(|copies| **copies > 0).count(),
        "parts_copied": copies.iter().filter(|copies| **copies > 1).count(),
        "part_list": parts.then(|| files.iter().map(part).collect::<Vec<_>>()),
        "recovery": blocks.figures(&source.name),
    })
}
