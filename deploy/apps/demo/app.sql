-- The demo application: meters on transformers, feeders and substations.
--
-- An application is one file of three kinds of statements: sources (what comes
-- in), reference tables (what is known), views (what is kept up to date).
-- Each view is declared once, here; the batch layer computes it over all
-- history, the speed layer up to the second, and every answer is both together.
--
--   sanso plan deploy/apps/demo/app.sql     shows what each layer makes of it
--   sanso dev  deploy/apps/demo/app.sql     runs it
--
-- Change a view while it runs: the new version is backfilled over all history
-- while the old one serves, then takes over.

-- The canonical reading: what every meter format is brought to, and one JSON
-- object in the log. Decimals are exact; there is no floating-point type.
--
--   key        whose readings stay together, in order (one log partition)
--   identity   which columns name a reading; a second record of the same
--              identity is a duplicate, a correction, or a conflict
--   version    the higher version wins, however late it comes
--   segment    how many offsets the batch layer takes in one step; small here,
--              so that you can see it move (65536 where it counts)
--   lateness   how long a window stays open for those that are behind;
--              a reading that is later still amends it
CREATE SOURCE readings (
  usage_point    TEXT NOT NULL,
  channel        TEXT NOT NULL,       -- E1, E2: to the customer; B1: from the customer
  start_utc      TIMESTAMP NOT NULL,
  duration_s     BIGINT NOT NULL,
  value          DECIMAL(18,6),       -- null is not zero: the meter could not be read
  unit           TEXT,
  quality        TEXT,                -- actual, estimated, missing, ...
  source_quality TEXT,
  reason         TEXT,
  source_version BIGINT,
  meter          TEXT,
  received_at    TIMESTAMP            -- not part of the content: a resent reading stays a duplicate
) WITH (
  topic = 'readings', format = 'json',
  key = 'usage_point', identity = 'usage_point, channel, start_utc', version = 'source_version',
  partitions = '4', segment = '2048', lateness = '2 hours'
);

-- Where each meter hangs, and since when. Times are ranges [valid_from, valid_to),
-- so a meter that was moved counts where it was at the time of the reading.
-- Correct a line of the file while it runs, and all history follows.
CREATE TABLE network (
  usage_point TEXT NOT NULL,
  transformer TEXT NOT NULL,
  feeder      TEXT NOT NULL,
  substation  TEXT NOT NULL,
  valid_from  TIMESTAMP NOT NULL,
  valid_to    TIMESTAMP NOT NULL
) WITH (path = 'network.csv');

-- One row for each meter, channel and local day. A window in a time zone is a
-- calendar window: the day the clocks change has 23 or 25 hours.
-- FILTER makes an aggregate of some of the rows.
CREATE VIEW meter_daily AS
  SELECT r.usage_point,
         r.channel,
         TUMBLE(r.start_utc, INTERVAL '1 day', 'Australia/Sydney') AS day,
         SUM(r.value)                                        AS kwh,
         MAX(r.value)                                        AS peak_kwh,
         COUNT(*)                                            AS readings,
         COUNT(*) FILTER (WHERE r.quality = 'estimated')     AS estimated,
         COUNT(*) FILTER (WHERE r.value IS NULL)             AS missing
  FROM readings r
  WHERE r.unit = 'kWh'
  GROUP BY r.usage_point, r.channel, day;

-- The load of each transformer in windows of half an hour. The join looks up
-- the row of the network that held when the reading was taken.
CREATE VIEW transformer_load AS
  SELECT n.transformer,
         TUMBLE(r.start_utc, INTERVAL '30 minutes')          AS half_hour,
         SUM(r.value) FILTER (WHERE r.channel LIKE 'E%')     AS kwh_import,
         SUM(r.value) FILTER (WHERE r.channel LIKE 'B%')     AS kwh_export,
         COUNT(*)                                            AS readings,
         COUNT(DISTINCT r.usage_point)                       AS meters
  FROM readings r
  JOIN network n ON r.usage_point = n.usage_point
                AND r.start_utc >= n.valid_from AND r.start_utc < n.valid_to
  WHERE r.unit = 'kWh'
  GROUP BY n.transformer, half_hour;

-- A view with an output topic also writes each window there once it is closed,
-- and again when a late reading or a correction amends it.
CREATE VIEW feeder_load WITH (output_topic = 'feeder_load_closed') AS
  SELECT n.feeder,
         TUMBLE(r.start_utc, INTERVAL '30 minutes')          AS half_hour,
         SUM(r.value) FILTER (WHERE r.channel LIKE 'E%')     AS kwh_import,
         SUM(r.value) FILTER (WHERE r.channel LIKE 'B%')     AS kwh_export,
         COALESCE(SUM(r.value) FILTER (WHERE r.channel LIKE 'E%'), 0)
           - COALESCE(SUM(r.value) FILTER (WHERE r.channel LIKE 'B%'), 0) AS kwh_net,
         COUNT(*)                                            AS readings,
         COUNT(DISTINCT r.usage_point)                       AS meters,
         MAX(r.value) FILTER (WHERE r.channel LIKE 'E%')     AS peak_meter_kwh
  FROM readings r
  JOIN network n ON r.usage_point = n.usage_point
                AND r.start_utc >= n.valid_from AND r.start_utc < n.valid_to
  WHERE r.unit = 'kWh'
  GROUP BY n.feeder, half_hour;

-- Aggregates may be combined in the SELECT list; they are taken after batch
-- and speed have been put together, so the result is exact as well.
-- The quantile is the one approximate aggregate: a sketch that can be merged
-- and that can take a corrected reading back, within 1 %.
CREATE VIEW substation_load AS
  SELECT n.substation,
         TUMBLE(r.start_utc, INTERVAL '30 minutes')          AS half_hour,
         SUM(r.value) FILTER (WHERE r.channel LIKE 'E%')     AS kwh_import,
         SUM(r.value) FILTER (WHERE r.channel LIKE 'B%')     AS kwh_export,
         COALESCE(SUM(r.value) FILTER (WHERE r.channel LIKE 'E%'), 0)
           - COALESCE(SUM(r.value) FILTER (WHERE r.channel LIKE 'B%'), 0) AS kwh_net,
         COUNT(*)                                            AS readings,
         COUNT(DISTINCT r.usage_point)                       AS meters,
         COUNT(*) FILTER (WHERE r.quality = 'estimated')     AS estimated,
         APPROX_PERCENTILE_CONT(r.value, 0.95)               AS p95_kwh
  FROM readings r
  JOIN network n ON r.usage_point = n.usage_point
                AND r.start_utc >= n.valid_from AND r.start_utc < n.valid_to
  WHERE r.unit = 'kWh'
  GROUP BY n.substation, half_hour;
