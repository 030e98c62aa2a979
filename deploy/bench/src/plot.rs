//! Lines over a few settings, as SVG.
//!
//! ```text
//!   title
//!   20 M │      ·───·  late merge
//!   10 M │  ·──·       shuffle          settings stand side by side, whatever lies between them
//!      0 └──┴──┴──┴──
//!         1  2  4  8
//! ```

use std::fmt::Write;

use crate::table::short;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 58.0;
const FOOT: f64 = 64.0;
/// The least space between two names at the right.
const NAME: f64 = 17.0;
const COLOURS: [&str; 7] = ["#2563eb", "#d97706", "#64748b", "#dc2626", "#7c3aed", "#047857", "#0891b2"];

/// How the values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// Equal ratios are equal distances.
    Logarithmic,
}

/// A picture.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What the settings are.
    pub(crate) across: String,
    /// What the values are, with their unit.
    pub(crate) up: String,
    pub(crate) settings: Vec<String>,
    pub(crate) scale: Scale,
    /// Names, and a value for each setting; none where it was not measured.
    pub(crate) lines: Vec<(String, Vec<Option<f64>>)>,
}

impl Plot {
    /// Draws it.
    ///
    /// # Panics
    /// When nothing was measured, or a logarithmic value is not positive.
    pub(crate) fn svg(&self) -> String {
        let values = || self.lines.iter().flat_map(|(_, values)| values).flatten().copied();
        let (least, most) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        assert!(most.is_finite(), "a plot of no values");
        assert!(self.scale == Scale::Linear || least > 0.0, "a logarithm of {least}");
        let marks = self.marks(least, most);
        let axis = Axis { scale: self.scale, from: marks[0], to: marks[marks.len() - 1] };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"DejaVu Sans, sans-serif\" font-size=\"12\" fill=\"#334155\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"16\" y=\"26\" font-size=\"16\" fill=\"#0f172a\">{}</text>\n\
             <text x=\"16\" y=\"46\">{}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            escaped(&self.title),
            escaped(&self.up),
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 18.0,
            escaped(&self.across)
        );
        for mark in &marks {
            let y = axis.y(*mark);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#cbd5e1\" stroke-width=\"0.7\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                short(*mark)
            );
        }
        for (index, setting) in self.settings.iter().enumerate() {
            let x = self.x(index);
            let foot = HEIGHT - FOOT;
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {foot}v5\" stroke=\"#64748b\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                foot + 20.0,
                escaped(setting)
            );
        }
        let places = self.places(&axis);
        for (index, (name, values)) in self.lines.iter().enumerate() {
            self.line(&mut svg, COLOURS[index % COLOURS.len()], values, &axis);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
                WIDTH - RIGHT + 14.0,
                places[index] + 4.0,
                COLOURS[index % COLOURS.len()],
                escaped(name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn line(&self, svg: &mut String, colour: &str, values: &[Option<f64>], axis: &Axis) {
        let measured = values.iter().enumerate().filter_map(|(index, value)| Some((index, (*value)?)));
        let spots: Vec<(f64, f64)> = measured.map(|(index, value)| (self.x(index), axis.y(value))).collect();
        let mut path = String::new();
        for (index, (x, y)) in spots.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    }

    fn x(&self, index: usize) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (index as f64 + 0.5) / self.settings.len() as f64
    }

    /// Where the lines' names stand: at their ends, moved apart where they would cover each other.
    fn places(&self, axis: &Axis) -> Vec<f64> {
        let end = |values: &Vec<Option<f64>>| values.iter().flatten().next_back().copied();
        let ends = self.lines.iter().map(|(_, values)| end(values).map_or(HEIGHT - FOOT, |end| axis.y(end)));
        let mut places: Vec<f64> = ends.collect();
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by(|one, other| places[*one].total_cmp(&places[*other]));
        // Downwards first; what was pushed below the foot then pushes upwards.
        for pair in order.windows(2) {
            places[pair[1]] = places[pair[1]].max(places[pair[0]] + NAME);
        }
        let mut lowest = HEIGHT - FOOT;
        for index in order.into_iter().rev() {
            places[index] = places[index].min(lowest);
            lowest = places[index] - NAME;
        }
        places
    }

    /// The values that are named at the left; all that was measured lies between the first and the last.
    fn marks(&self, least: f64, most: f64) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = steps(1e-9).find(|step| most / step <= 6.0).expect("steps without end");
                (0..=(most / step).ceil().max(1.0) as u32).map(|index| f64::from(index) * step).collect()
            }
            Scale::Logarithmic => {
                let all: Vec<f64> = steps(1e-9).take_while(|step| *step < most * 10.0).collect();
                let first = all.iter().rposition(|mark| *mark <= least).unwrap_or(0);
                let last = all.iter().position(|mark| *mark >= most).unwrap_or(all.len() - 1).max(first + 1);
                let marks = &all[first..=last];
                // Of many, the powers of ten, and the ends.
                let few = |(index, _): &(usize, &f64)| {
                    let power = (first + index).is_multiple_of(3);
                    marks.len() <= 9 || power || *index == 0 || *index == marks.len() - 1
                };
                marks.iter().enumerate().filter(few).map(|(_, mark)| *mark).collect()
            }
        }
    }
}

/// Returns 1, 2, 5, 10, 20, … times a power of ten, without end.
fn steps(from: f64) -> impl Iterator<Item = f64> {
    (0..).flat_map(move |power| [1.0, 2.0, 5.0].map(|digit| digit * from * 10_f64.powi(power)))
}

struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        HEIGHT - FOOT - part * (HEIGHT - FOOT - TOP)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, lines: &[&[Option<f64>]]) -> Plot {
        let lines = lines.iter().map(|values| ("a < b".to_owned(), values.to_vec())).collect();
        let settings = vec!["1".to_owned(), "2".to_owned(), "4".to_owned()];
        let text = String::new;
        Plot { title: "t".to_owned(), across: text(), up: text(), settings, scale, lines }
    }

    #[test]
    fn a_plot_has_a_point_for_each_value_measured_and_a_name_for_each_line() {
        let plot = plot(Scale::Linear, &[&[Some(1.0), None, Some(3.0)], &[Some(2.0), Some(2.0), Some(3.0)]]);
        let svg = plot.svg();
        assert_eq!(svg.matches("<circle").count(), 5);
        assert_eq!(svg.matches("a &lt; b").count(), 2);
        assert!(svg.contains(">3</text>"), "the marks are numbers: {svg}");
    }

    #[test]
    fn all_values_lie_between_the_first_mark_and_the_last() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for most in [0.003, 1.0, 7.3, 2e4, 9.9e7] {
                for least in [most, most / 3.0, most / 2e6] {
                    let marks = plot(scale, &[]).marks(least, most);
                    let (first, last) = (marks[0], marks[marks.len() - 1]);
                    assert!(
                        first <= least * 1.000_001 && last >= most * 0.999_999,
                        "{marks:?} of {least} to {most}"
                    );
                    assert!(first < last && marks.len() <= 14, "{marks:?}");
                }
            }
        }
    }

    #[test]
    fn names_of_lines_that_end_together_do_not_cover_each_other() {
        let plot = plot(Scale::Linear, &[&[Some(0.0)], &[Some(0.0)], &[Some(0.1)], &[Some(9.0)]]);
        let mut places = plot.places(&Axis { scale: Scale::Linear, from: 0.0, to: 10.0 });
        places.sort_by(f64::total_cmp);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= NAME - 1e-6), "{places:?}");
        assert!(places.iter().all(|place| (TOP..=HEIGHT - FOOT).contains(place)), "{places:?}");
    }
}
