// The main of every small benchmark: as Google's, but a benchmark that gave up (SkipWithError)
// makes the exit code 1, so that the tests notice it.
#include <benchmark/benchmark.h>

#include <vector>

namespace {

class Reporter : public benchmark::ConsoleReporter {
  public:
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) failed_ |= run.error_occurred;
        ConsoleReporter::ReportRuns(runs);
    }
    bool failed() const { return failed_; }

  private:
    bool failed_ = false;
};

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    Reporter reporter;
    const bool ran = benchmark::RunSpecifiedBenchmarks(&reporter) > 0;
    benchmark::Shutdown();
    return ran && !reporter.failed() ? 0 : 1;
}
