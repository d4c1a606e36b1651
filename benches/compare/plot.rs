//! The ratios as a picture: one bar for each line and rival, the rival's own figure being 1.

use std::fmt::Write;

use crate::lines::Goal;
use crate::table::{Ratio, Row};

const WIDTH: f64 = 850.0;
/// Where bars begin, and how long one of ratio 1 is.
const LEFT: f64 = 430.0;
const UNIT: f64 = 300.0;
/// Longer bars are cut; their figure tells.
const RATIO_MAX: f64 = 1.2;
const TOP: f64 = 64.0;
const BAR: f64 = 15.0;
const GAP: f64 = 12.0;
const COLOURS: [&str; 3] = ["#2f6f9f", "#c77d2e", "#6a8f4e"];

/// An SVG document. Lines where more is better are turned round, so that shorter is always better.
pub fn svg(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = TOP;
    let mut rivals: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.line.unit != "×") {
        let ratios: Vec<_> = row.series[1..]
            .iter()
            .filter_map(|series| Some((series.contender.as_str(), row.ratio(series)?)))
            .filter(|(_, ratio)| ratio.median.is_finite() && ratio.median > 0.0)
            .collect();
        if ratios.is_empty() {
            continue;
        }
        let middle = y + BAR * ratios.len() as f64 / 2.0 + 4.0;
        let turned = if row.line.unit == "/s" { " (inverse)" } else { "" };
        let title = escaped(row.line.title);
        text(&mut body, LEFT - 10.0, middle, "end", &format!("{title}{turned}"));
        let begin = y;
        for (rival, ratio) in ratios {
            let at = rivals.iter().position(|known| *known == rival).unwrap_or_else(|| {
                rivals.push(rival);
                rivals.len() - 1
            });
            bar(&mut body, y, COLOURS[at % COLOURS.len()], as_cost(ratio, row.line.unit));
            y += BAR;
        }
        goal(&mut body, begin, y, row.line.goal);
        y += GAP;
    }
    document(&body, y, &rivals)
}

/// Turned round where more is better.
fn as_cost(ratio: Ratio, unit: &str) -> Ratio {
    match unit {
        "/s" => Ratio {
            median: 1.0 / ratio.median,
            low: 1.0 / ratio.high,
            high: 1.0 / ratio.low,
            bound: ratio.bound.turned(),
        },
        _ => ratio,
    }
}

fn bar(body: &mut String, y: f64, colour: &str, Ratio { median, low, high, bound }: Ratio) {
    let x = |ratio: f64| LEFT + UNIT * ratio.clamp(0.0, RATIO_MAX);
    let (width, middle) = (x(median) - LEFT, y + BAR / 2.0 - 1.0);
    let _ = writeln!(
        body,
        r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{}" fill="{colour}"/>"#,
        BAR - 2.0
    );
    // From the lowest to the highest round.
    let _ = writeln!(
        body,
        r##"<path d="M{:.1} {middle:.1}H{:.1}" stroke="#222" stroke-width="1.5"/>"##,
        x(low),
        x(high)
    );
    // In a column of their own, away from the goals.
    text(body, WIDTH - 20.0, y + BAR - 4.0, "end", &format!("{}{median:.2}", bound.mark()));
}

fn goal(body: &mut String, from: f64, to: f64, goal: Goal) {
    let ratio = match goal {
        Goal::AtMost(ratio) => ratio,
        Goal::AtLeast(ratio) => 1.0 / ratio,
        Goal::None => return,
    };
    let x = LEFT + UNIT * ratio;
    let _ = writeln!(
        body,
        r##"<path d="M{x:.1} {:.1}V{:.1}" stroke="#b3261e" stroke-width="2"/>"##,
        from - 3.0,
        to + 1.0
    );
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
}

fn document(body: &str, bottom: f64, rivals: &[&str]) -> String {
    let height = bottom + 30.0;
    let mut head = String::new();
    text(&mut head, LEFT, 20.0, "start", "hairpin’s cost as a part of that of");
    let mut x = LEFT;
    for (at, rival) in rivals.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let _ = writeln!(head, r#"<rect x="{x}" y="32" width="10" height="10" fill="{colour}"/>"#);
        text(&mut head, x + 15.0, 41.0, "start", &escaped(rival));
        x += 40.0 + 7.0 * rival.len() as f64;
    }
    for tenth in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let x = LEFT + UNIT * tenth;
        let colour = if tenth == 1.0 { "#222" } else { "#ddd" };
        let _ = writeln!(
            head,
            r#"<path d="M{x} {}V{bottom}" stroke="{colour}" stroke-width="1"/>"#,
            TOP - 8.0
        );
        text(&mut head, x, bottom + 16.0, "middle", &tenth.to_string());
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" fill="#222">
<title>hairpin beside other TURN servers</title>
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
{head}{body}<text x="10" y="{:.1}">red: the goal; black: from the best round to the worst</text>
</svg>
"##,
        bottom + 16.0
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
