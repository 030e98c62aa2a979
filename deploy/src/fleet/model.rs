//! What the meters measure: household load, weather and sun; pure.
//!
//! A value is a function of seed, meter and half-hour alone, so that a late
//! reading or a correction needs no memory of what was measured.

use std::f64::consts::PI;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Australia::Sydney;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{FleetConfig, mix};

/// The length of an interval in seconds.
pub(crate) const INTERVAL_S: i64 = 1800;
/// The share of meters with solar panels.
const SOLAR_SHARE: f64 = 0.25;
/// Where the fleet lives, in degrees.
const LATITUDE: f64 = -33.87;
const LONGITUDE: f64 = 151.21;

/// A channel of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    /// Energy to the customer.
    Import,
    /// Energy from the customer.
    Export,
}

impl Channel {
    /// Returns the channel's name in readings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Channel::Import => "E1",
            Channel::Export => "B1",
        }
    }
}

/// A household with a meter.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) usage_point: String,
    pub(crate) serial: String,
    /// How much the household uses, 1 being the average.
    scale: f64,
    /// How many hours later than average its people live.
    shift_h: f64,
    /// How much of the heating and cooling is electric.
    comfort: f64,
    /// The peak power of its panels in kW; 0 without any.
    solar_kw: f64,
}

impl Meter {
    fn new(config: &FleetConfig, index: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(mix(config.seed, &[2, index as u64]));
        let spread: f64 = (0..4).map(|_| rng.random::<f64>()).sum::<f64>() / 2.0 - 1.0;
        let solar = rng.random_bool(SOLAR_SHARE);
        Self {
            usage_point: format!("4103{:06}", 100_000 + index * 37),
            serial: format!("SM{:06}", 500_000 + index * 13),
            scale: (0.55 * spread).exp(),
            shift_h: rng.random_range(-1.0..1.2),
            comfort: rng.random_range(0.2..1.4),
            solar_kw: if solar { rng.random_range(3.0..8.0) } else { 0.0 },
        }
    }

    /// Returns the channels the meter has.
    pub(crate) fn channels(&self) -> &'static [Channel] {
        if self.solar_kw > 0.0 { &[Channel::Import, Channel::Export] } else { &[Channel::Import] }
    }
}

/// The meters of a fleet and what they measure.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    seed: u64,
    start: DateTime<Utc>,
    pub(crate) meters: Vec<Meter>,
}

impl Model {
    /// Creates the meters.
    pub(crate) fn new(config: &FleetConfig) -> Self {
        let meters = (0..config.meters).map(|index| Meter::new(config, index)).collect();
        Self { seed: config.seed, start: config.start, meters }
    }

    /// Returns when an interval starts.
    pub(crate) fn start_of(&self, interval: u64) -> DateTime<Utc> {
        self.start + TimeDelta::seconds(INTERVAL_S * interval as i64)
    }

    /// Returns what a channel measures in an interval, in thousandths of a kWh.
    pub(crate) fn measured(&self, meter: usize, channel: Channel, interval: u64) -> i64 {
        let mut rng = StdRng::seed_from_u64(mix(self.seed, &[3, meter as u64, interval]));
        let wobble = 0.55 + 0.9 * rng.random::<f64>();
        let appliance = if rng.random_bool(0.07) { rng.random_range(0.4..2.2) } else { 0.0 };
        let cloud_noise = 0.9 + 0.2 * rng.random::<f64>();
        let household = &self.meters[meter];
        let load = self.load_kw(household, interval) * wobble + appliance * household.scale;
        self.energy(household, channel, interval, load, cloud_noise)
    }

    /// Returns what an estimator that knows the household's habits would say.
    pub(crate) fn estimated(&self, meter: usize, channel: Channel, interval: u64) -> i64 {
        let household = &self.meters[meter];
        let load = self.load_kw(household, interval) * 1.1;
        self.energy(household, channel, interval, load, 1.0)
    }

    fn energy(&self, meter: &Meter, channel: Channel, interval: u64, load_kw: f64, cloud_noise: f64) -> i64 {
        let sun = sun_elevation_sine(self.start_of(interval) + TimeDelta::seconds(INTERVAL_S / 2));
        let solar_kw = meter.solar_kw * sun.max(0.0).powf(1.2) * self.clearness(interval) * cloud_noise;
        let net_kw = load_kw - solar_kw;
        let kw = match channel {
            Channel::Import => net_kw.max(0.0),
            Channel::Export => (-net_kw).max(0.0),
        };
        // Half an hour in thousandths of a kWh.
        (kw * 500.0).round() as i64
    }

    /// Returns a household's usual load: low at night, a peak in the morning
    /// and a larger one in the evening, people at home at weekends.
    fn load_kw(&self, meter: &Meter, interval: u64) -> f64 {
        let local = self.start_of(interval).with_timezone(&Sydney);
        let hour = f64::from(local.hour()) + f64::from(local.minute()) / 60.0 + 0.25 - meter.shift_h;
        let weekend = matches!(local.weekday(), Weekday::Sat | Weekday::Sun);
        let morning = if weekend { 0.55 * bump(hour, 9.3, 1.7) } else { 0.75 * bump(hour, 7.1, 1.1) };
        let midday = if weekend { 0.35 } else { 0.12 } * bump(hour, 13.0, 2.6);
        let evening = 1.25 * bump(hour, 18.9, 1.9) + 0.3 * bump(hour, 21.5, 1.4);
        let away_from_20 = (self.temperature(interval) - 20.0).abs();
        let climate = meter.comfort * 0.045 * away_from_20 * (0.35 + 0.9 * bump(hour, 18.5, 3.5));
        meter.scale * (0.16 + morning + midday + evening + climate)
    }

    /// Returns the day's weather, from 0 to 1, changing smoothly from day to day.
    fn weather(&self, interval: u64, kind: u64) -> f64 {
        let day = interval / 48;
        let part = (interval % 48) as f64 / 48.0;
        let of = |day: u64| StdRng::seed_from_u64(mix(self.seed, &[4, kind, day])).random::<f64>();
        of(day) * (1.0 - part) + of(day + 1) * part
    }

    fn temperature(&self, interval: u64) -> f64 {
        let local = self.start_of(interval).with_timezone(&Sydney);
        let season = (f64::from(local.ordinal0()) / 365.25 * 2.0 * PI - 0.35).cos();
        let of_day = ((f64::from(local.hour()) - 15.0) / 24.0 * 2.0 * PI).cos();
        17.5 + 5.0 * season + 4.0 * of_day + 9.0 * (self.weather(interval, 0) - 0.5)
    }

    /// Returns the share of sunlight that gets through the clouds.
    fn clearness(&self, interval: u64) -> f64 {
        let sky = self.weather(interval, 1);
        let passing = StdRng::seed_from_u64(mix(self.seed, &[5, interval])).random::<f64>();
        (0.25 + 0.75 * sky) * (1.0 - 0.35 * (1.0 - sky) * passing)
    }
}

fn bump(hour: f64, at: f64, width: f64) -> f64 {
    // The clock is round: 23:30 is an hour before 00:30.
    let distance = (hour - at + 36.0).rem_euclid(24.0) - 12.0;
    (-0.5 * (distance / width).powi(2)).exp()
}

/// Returns the sine of the sun's elevation: Cooper's declination and the mean
/// sun's hour angle, good to a few minutes of time.
fn sun_elevation_sine(at: DateTime<Utc>) -> f64 {
    let day = f64::from(at.ordinal()) + f64::from(at.num_seconds_from_midnight()) / 86_400.0;
    let declination = 23.45_f64.to_radians() * ((284.0 + day) / 365.0 * 2.0 * PI).sin();
    let solar_hour = f64::from(at.num_seconds_from_midnight()) / 3600.0 + LONGITUDE / 15.0;
    let angle = ((solar_hour - 12.0) * 15.0).to_radians();
    let latitude = LATITUDE.to_radians();
    latitude.sin() * declination.sin() + latitude.cos() * declination.cos() * angle.cos()
}
