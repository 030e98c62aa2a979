//! The timeline of a drill: every request by when it was due and how long it took, with the fault and
//! the stalls, as SVG.
//!
//! ```text
//!   read      log ms │ · ····  ░░░░▒▒▒ · ···     ░ something is wrong, from harm to all well
//!   write            │ ·  ··   ░░░░▒▒▒ ·· ··     ▒ a stall
//!   visible          │
//!   clients          │ ──      ─── ▬▬▬ ──        one row each: its stalls
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::history::{Class, History};
use crate::judge::stalls_of_operations;

const WIDTH: f64 = 1400.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const PANEL: f64 = 168.0;
const GAP: f64 = 26.0;
const ROW: f64 = 9.0;
/// The times that a panel spans, in milliseconds; what is beyond is drawn at the edge.
const LEAST_MS: f64 = 0.1;
const MOST_MS: f64 = 30_000.0;
/// From this on a wait is drawn as a stall.
const STALL_US: u64 = 100_000;

fn colour(class: Class) -> &'static str {
    match class {
        Class::Read => "#2563eb",
        Class::Write => "#047857",
        Class::Visible => "#7c3aed",
    }
}

/// Where a moment lies.
struct Axis {
    end_us: f64,
}

impl Axis {
    fn x(&self, us: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (us as f64 / self.end_us).min(1.0)
    }
}

/// Returns how far above a panel's foot a time is drawn.
fn height(us: u64) -> f64 {
    let ms = (us as f64 / 1e3).clamp(LEAST_MS, MOST_MS);
    PANEL * (ms / LEAST_MS).ln() / (MOST_MS / LEAST_MS).ln()
}

/// Draws a drill.
pub fn svg(history: &History, title: &str) -> String {
    let axis = Axis { end_us: history.ended_us.max(1) as f64 };
    let clients: BTreeSet<usize> = history.operations.iter().map(|operation| operation.client).collect();
    let panels = TOP + 3.0 * (PANEL + GAP);
    let foot = panels + ROW * clients.len() as f64;
    let total = foot + 48.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" width=\"{WIDTH}\" height=\"{total}\" \
         font-family=\"DejaVu Sans, sans-serif\" font-size=\"12\" fill=\"#334155\">\n\
         <rect width=\"{WIDTH}\" height=\"{total}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"17\" fill=\"#0f172a\">{}</text>\n",
        escaped(title)
    );
    faults(&mut svg, history, &axis, foot);
    let stalls = stalls_of_operations(history);
    for (index, class) in Class::ALL.into_iter().enumerate() {
        let top = TOP + index as f64 * (PANEL + GAP);
        panel(&mut svg, class, top, history, &stalls, &axis);
    }
    rows(&mut svg, &clients, panels, history, &stalls, &axis);
    seconds(&mut svg, &axis, foot);
    svg.push_str("</svg>\n");
    svg
}

/// Draws when something was wrong, behind everything.
fn faults(svg: &mut String, history: &History, axis: &Axis, foot: f64) {
    for (index, mark) in history.marks.iter().enumerate() {
        let (from, to) = (axis.x(mark.from_us), axis.x(mark.to_us));
        let width = (to - from).max(1.0);
        let height = foot - TOP;
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" fill=\"#fef3c7\"/>\
             <path d=\"M{from:.1} {0}V{foot}M{to:.1} {0}V{foot}\" stroke=\"#d97706\" stroke-dasharray=\"4 3\" fill=\"none\"/>\
             <text x=\"{1:.1}\" y=\"{2}\" fill=\"#b45309\">{3}</text>",
            TOP - 6.0,
            from + 4.0,
            // Two that follow each other closely don't cover each other's names.
            TOP - 10.0 - 12.0 * (index % 2) as f64,
            escaped(&mark.what)
        );
    }
}

/// Draws the requests of a class.
fn panel(svg: &mut String, class: Class, top: f64, history: &History, stalls: &[(u64, bool)], axis: &Axis) {
    let foot = top + PANEL;
    let of_class =
        || history.operations.iter().zip(stalls).filter(|(operation, _)| operation.request.class() == class);
    let waits = of_class().filter(|(_, (us, _))| *us >= STALL_US);
    for (from, to) in union(waits.map(|(operation, (us, _))| (operation.due_us, operation.due_us + us))) {
        let (from, to) = (axis.x(from), axis.x(to));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#f87171\" fill-opacity=\"0.35\"/>",
            (to - from).max(1.0)
        );
    }
    let mut ms = LEAST_MS;
    while ms <= MOST_MS {
        let y = foot - height((ms * 1e3) as u64);
        let label = if ms < 1_000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1e3) };
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#cbd5e1\" stroke-width=\"0.6\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"10\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 3.5
        );
        ms *= 10.0;
    }
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{}\" font-size=\"13\" font-weight=\"bold\" fill=\"{}\">{}</text>",
        top - 6.0,
        colour(class),
        class.name()
    );
    // What falls on the same spot is drawn once.
    let mut good = BTreeSet::new();
    let mut bad = BTreeSet::new();
    for (operation, (us, _)) in of_class() {
        let spot = ((axis.x(operation.due_us) * 2.0) as i64, ((foot - height(*us)) * 2.0) as i64);
        if operation.good().is_some() {
            good.insert(spot)
        } else {
            bad.insert(spot)
        };
    }
    let _ =
        write!(svg, "<path stroke=\"{}\" stroke-width=\"2\" stroke-linecap=\"round\" d=\"", colour(class));
    for (x, y) in good {
        let _ = write!(svg, "M{} {}h0", x as f64 / 2.0, y as f64 / 2.0);
    }
    svg.push_str("\"/>\n<path stroke=\"#dc2626\" stroke-width=\"1.4\" d=\"");
    for (x, y) in bad {
        let _ = write!(svg, "M{} {}l5 5m0 -5l-5 5", x as f64 / 2.0 - 2.5, y as f64 / 2.0 - 2.5);
    }
    svg.push_str("\"/>\n");
}

/// Draws a row for each client with its stalls.
fn rows(
    svg: &mut String,
    clients: &BTreeSet<usize>,
    top: f64,
    history: &History,
    stalls: &[(u64, bool)],
    axis: &Axis,
) {
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{}\" font-size=\"13\" font-weight=\"bold\" fill=\"#0f172a\">clients</text>",
        top - 6.0
    );
    for (index, client) in clients.iter().enumerate() {
        let y = top + ROW * index as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {:.1}H{}\" stroke=\"#e2e8f0\" stroke-width=\"0.6\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"8\">{client}</text>",
            y + ROW,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + ROW - 1.5
        );
        for class in Class::ALL {
            let of_client = history.operations.iter().zip(stalls).filter(|(operation, (us, _))| {
                operation.client == *client && operation.request.class() == class && *us >= STALL_US
            });
            let waits =
                union(of_client.map(|(operation, (us, _))| (operation.due_us, operation.due_us + us)));
            for (from, to) in waits {
                let (from, to) = (axis.x(from), axis.x(to));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\" fill-opacity=\"0.6\"/>",
                    y + 1.0,
                    (to - from).max(1.0),
                    ROW - 2.0,
                    colour(class)
                );
            }
        }
    }
}

/// Draws the seconds.
fn seconds(svg: &mut String, axis: &Axis, foot: f64) {
    let end_s = (axis.end_us / 1e6) as u64;
    let step = [1, 2, 5, 10, 20, 60, 120, 600].into_iter().find(|step| end_s / step <= 16).unwrap_or(3600);
    for second in (0..=end_s).step_by(step as usize) {
        let x = axis.x(second * 1_000_000);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {foot}v5\" stroke=\"#64748b\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\">{second} s</text>",
            foot + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-size=\"11\" fill=\"#64748b\">one point a request, at the time it was due; \
         a cross was given up; amber: something is wrong; red: a stall of {} ms or more</text>",
        foot + 38.0,
        STALL_US / 1000
    );
}

/// Joins intervals that touch.
fn union(intervals: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut sorted: Vec<(u64, u64)> = intervals.collect();
    sorted.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in sorted {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, Mark, Operation, Request};

    fn history() -> History {
        let attempt = |ended_us, error| Attempt { node: Some(0), began_us: 0, ended_us, error };
        let operation = |key, attempt| Operation {
            client: 3,
            request: Request::Write { key, sequence: 0 },
            due_us: 0,
            taken_up_us: 0,
            attempts: vec![attempt],
            seen: None,
        };
        let mark = Mark { what: "kill <all>".into(), nodes: [2].into(), from_us: 400_000, to_us: 900_000 };
        let operations = vec![
            operation(0, attempt(5_000, None)),
            operation(1, attempt(250_000, None)),
            operation(2, attempt(800_000, Some("refused".into()))),
        ];
        History { operations, marks: vec![mark], ended_us: 1_000_000 }
    }

    #[test]
    fn a_drawing_shows_points_crosses_stalls_and_the_fault() {
        let svg = svg(&history(), "a & b");
        assert!(svg.contains("kill &lt;all&gt;") && svg.contains("a &amp; b"));
        assert_eq!(svg.matches("h0").count(), 2, "two good answers");
        assert_eq!(svg.matches("l5 5").count(), 1, "one given up");
        assert_eq!(svg.matches("#f87171").count(), 1, "stalls that touch are one");
        assert_eq!(svg.matches("#fef3c7").count(), 1);
    }
}
