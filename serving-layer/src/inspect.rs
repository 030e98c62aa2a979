//! What a request is read as and a query planned as, without a node behind it: for the fuzzer.

use std::sync::Arc;

use axum::http::{HeaderMap, Uri};
use sanso_view::View;

use crate::config::ServingConfig;
use crate::plan::Wanted;
use crate::problem::Problem;
use crate::routes::view::Request;
use crate::session::Session;
use crate::sql::{self, QueryThreads};

/// What the parameters of `GET /v1/views/{view}` say.
#[derive(Debug)]
pub struct Parameters {
    /// What is wanted of the view.
    pub wanted: Wanted,
    /// What the caller has seen.
    pub session: Session,
    /// The rows wanted at most.
    pub rows_max: usize,
}

/// Reads the parameters of a request for a view.
pub fn parameters(config: &ServingConfig, view: &View, uri: &Uri) -> Result<Parameters, Problem> {
    let Request { options, wanted, .. } = Request::read(config, view, uri, &HeaderMap::new())?;
    Ok(Parameters { wanted, session: options.need.session, rows_max: options.rows_max })
}

/// Plans queries over views that hold nothing, on threads like those of a node.
pub struct QueryPlanner {
    threads: QueryThreads,
    config: ServingConfig,
    views: Vec<Arc<View>>,
}

impl QueryPlanner {
    /// Creates a planner with these views as tables.
    pub fn new(views: Vec<Arc<View>>) -> Self {
        Self { threads: QueryThreads::new(1), config: ServingConfig::default(), views }
    }

    /// Plans a statement and describes the plan; runs nothing of it.
    pub fn plan(&self, sql: &str) -> Result<String, Problem> {
        let (config, views, sql) = (self.config.clone(), self.views.clone(), sql.to_owned());
        let planned = async move { sql::rehearse(&config, &views, &sql).await };
        futures::executor::block_on(self.threads.run(planned))?
    }
}
