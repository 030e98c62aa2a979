import static org.apache.flink.table.api.DataTypes.BIGINT;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.runtime.util.EnvironmentInformation;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/**
 * The contest's tuples through Apache Flink in this process: sum and number of each key in one window.
 * Arguments: plain or sql, tuples, keys, percent of tuples on key 0, parallelism. Prints JSON.
 *
 * <p>plain is keyBy, window, reduce; sql is a windowed GROUP BY that aggregates before and after the exchange.
 * The tuples and what becomes of the result are those of tuples.rs, to the bit.
 */
public final class Flink {
  private static final LongAdder GROUPS = new LongAdder();
  private static final LongAdder ROWS = new LongAdder();
  private static final LongAdder SUM = new LongAdder();
  private static final LongAdder MIXED = new LongAdder();

  private static long mix(long x) {
    x = (x ^ (x >>> 30)) * 0xbf58476d1ce4e5b9L;
    x = (x ^ (x >>> 27)) * 0x94d049bb133111ebL;
    return x ^ (x >>> 31);
  }

  private static long draw(long n) {
    return mix(1 + (n + 1) * 0x9e3779b97f4a7c15L);
  }

  /** Key, value and 1. */
  private static Tuple3<Long, Long, Long> tuple(long i, long keys, long hotPercent) {
    boolean hot = Long.remainderUnsigned(draw(3 * i), 100) < hotPercent;
    long key = hot ? 0 : ((draw(3 * i + 1) >>> 32) * keys) >>> 32;
    return Tuple3.of(key, Long.remainderUnsigned(draw(3 * i + 2), 2_000_000), 1L);
  }

  private static Integer take(long key, long sum, long rows) {
    GROUPS.increment();
    ROWS.add(rows);
    SUM.add(sum);
    MIXED.add(mix(key + 1) * sum + mix(~key) * rows);
    return 0;
  }

  public static void main(String[] args) throws Exception {
    boolean sql = args[0].equals("sql");
    long tuples = Long.parseLong(args[1]);
    long keys = Long.parseLong(args[2]);
    long hotPercent = Long.parseLong(args[3]);
    Configuration configuration = new Configuration();
    configuration.set(RestOptions.PORT, 0);
    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(args[4]), configuration);
    environment.getConfig().enableObjectReuse();
    DataStream<Tuple3<Long, Long, Long>> stream =
        environment
            .fromSequence(0, tuples - 1)
            .map(i -> tuple(i, keys, hotPercent))
            .returns(Types.TUPLE(Types.LONG, Types.LONG, Types.LONG));
    (sql ? grouped(environment, stream) : reduced(stream)).sinkTo(new DiscardingSink<>());
    long began = System.nanoTime();
    environment.execute();
    double seconds = (System.nanoTime() - began) / 1e9;
    System.out.printf(
        "{\"version\": \"%s\", \"cost\": {\"seconds\": %.6f}, \"peak_mb\": %.1f,"
            + " \"digest\": {\"groups\": %d, \"rows\": %d, \"sum\": %d, \"mixed\": \"%s\"}}%n",
        EnvironmentInformation.getVersion(), seconds, peakMb(), GROUPS.sum(), ROWS.sum(), SUM.sum(),
        Long.toUnsignedString(MIXED.sum()));
  }

  private static DataStream<Integer> reduced(DataStream<Tuple3<Long, Long, Long>> stream) {
    return stream
        .assignTimestampsAndWatermarks(
            WatermarkStrategy.<Tuple3<Long, Long, Long>>forMonotonousTimestamps()
                .withTimestampAssigner((tuple, before) -> 0))
        .keyBy(tuple -> tuple.f0, Types.LONG)
        .window(TumblingEventTimeWindows.of(Duration.ofSeconds(1)))
        .reduce((left, right) -> Tuple3.of(left.f0, left.f1 + right.f1, left.f2 + right.f2))
        .map(total -> take(total.f0, total.f1, total.f2))
        .returns(Types.INT);
  }

  private static DataStream<Integer> grouped(
      StreamExecutionEnvironment environment, DataStream<Tuple3<Long, Long, Long>> stream) {
    StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
    tables.getConfig().set("table.optimizer.agg-phase-strategy", "TWO_PHASE");
    Schema schema =
        Schema.newBuilder()
            .column("f0", BIGINT().notNull())
            .column("f1", BIGINT().notNull())
            .columnByExpression("ts", "TO_TIMESTAMP_LTZ(0, 3)")
            .watermark("ts", "ts")
            .build();
    tables.createTemporaryView("tuples", stream, schema);
    String query =
        "SELECT f0, SUM(f1), COUNT(*) FROM TABLE(TUMBLE(TABLE tuples, DESCRIPTOR(ts), INTERVAL '1' SECOND))"
            + " GROUP BY f0, window_start, window_end";
    return tables
        .toDataStream(tables.sqlQuery(query))
        .map(row -> take((Long) row.getField(0), (Long) row.getField(1), (Long) row.getField(2)))
        .returns(Types.INT);
  }

  private static double peakMb() throws Exception {
    String line = Files.readAllLines(Path.of("/proc/self/status")).stream()
        .filter(found -> found.startsWith("VmHWM:")).findFirst().orElseThrow();
    return Double.parseDouble(line.replaceAll("[^0-9]", "")) / 1000;
  }
}
