// The subcommands that are the engine or talk to it. Each parses its own arguments and returns the exit code of DESIGN 3.4:
// 0, 1 failure at run time, 2 usage or configuration, 3 spool held by another engine, 4 journal, 75 mail waits.
#pragma once

namespace postrider {

inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitSpoolHeld = 3;
inline constexpr int kExitJournal = 4;
inline constexpr int kExitMailWaits = 75;

int run_engine(int argc, char** argv);  // postrider run
int run_check(int argc, char** argv);   // postrider check
int run_explain(int argc, char** argv); // postrider explain
int run_why(int argc, char** argv);     // postrider why
int run_shape(int argc, char** argv);   // postrider shape
int run_reload(int argc, char** argv);  // postrider reload
int run_queue(int argc, char** argv);   // postrider queue
int run_status(int argc, char** argv);  // postrider status
int run_top(int argc, char** argv);     // postrider top
int run_trace(int argc, char** argv);   // postrider trace

}  // namespace postrider
