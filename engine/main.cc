// postrider: one program, its commands by their first word.
#include <cstdio>
#include <cstring>
#include <string_view>

#include "engine/commands.h"
#include "tools/gen.h"
#include "tools/send.h"
#include "tools/sink/sink.h"

namespace {

struct Command {
    std::string_view name;
    int (*run)(int argc, char** argv);
    const char* summary;
};

constexpr Command kCommands[] = {
    {"run", postrider::run_engine, "deliver the mail in the spool"},
    {"check", postrider::run_check, "read the configuration and say what is wrong with it"},
    {"send", postrider::run_send, "put messages into the spool, safely"},
    {"status", postrider::run_status, "ask a running engine what it is doing"},
    {"top", postrider::run_top, "the same every few seconds, with its rates, and the longest queues"},
    {"queue", postrider::run_queue, "look at what waits; suspend, resume, cancel or flush it"},
    {"shape", postrider::run_shape, "show and change limits while the engine runs"},
    {"explain", postrider::run_explain, "every limit that holds for a domain, where it comes from, its use"},
    {"why", postrider::run_why, "what the mail of a domain or campaign waits for"},
    {"trace", postrider::run_trace, "what is said with the mail servers of a domain, as it is said"},
    {"reload", postrider::run_reload, "read the configuration again in a running engine"},
    {"sink", postrider::run_sink, "a receiver for tests and rehearsals: SMTP and DNS"},
    {"gen", postrider::run_gen, "fill a spool for load tests"},
};

int usage(std::FILE* out) {
    std::fputs("postrider delivers bulk mail from a spool directory to the recipients' mail servers.\n\n"
               "usage: postrider COMMAND [options]\n\n", out);
    for (const auto& command : kCommands)
        std::fprintf(out, "  %-8s %s\n", command.name.data(), command.summary);
    std::fputs("\n`postrider COMMAND --help` tells more, with an example. `postrider --version` tells the version.\n", out);
    return out == stdout ? 0 : postrider::kExitUsage;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return usage(stderr);
    const std::string_view name = argv[1];
    if (name == "--help" || name == "-h" || (name == "help" && (argc == 2 || argv[2] == name))) return usage(stdout);
    if (name == "--version") {
        std::printf("postrider %s\n", POSTRIDER_VERSION);
        return 0;
    }
    const bool help = name == "help";
    char* const word = help ? argv[2] : argv[1];
    char option[] = "--help";
    char* asking[] = {word, option, nullptr};
    for (const auto& command : kCommands)
        if (command.name == word) return help ? command.run(2, asking) : command.run(argc - 1, argv + 1);
    std::fprintf(stderr, "postrider: there is no command `%s`\n\n", word);
    return usage(stderr);
}
