// The whole engine against a sink in the same process: a spool in a folder of its own, loopback alone, free ports.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "engine/engine.h"
#include "tools/gen.h"
#include "tools/sink/sink.h"

namespace postrider::test {

struct Ledger {
    std::map<std::string, int> delivered, bounced;  // records by recipient
    size_t transient = 0, ambiguous = 0;
};

class Rehearsal : public ::testing::Test {
  protected:
    Rehearsal() {
        std::string name = (std::filesystem::temp_directory_path() / "postrider-engine-XXXXXX");
        folder_ = mkdtemp(name.data());
    }
    ~Rehearsal() override {
        engine_.reset();
        sink_.reset();
        std::filesystem::remove_all(folder_);
    }

    SinkOptions plain_sink() {
        SinkOptions options;
        options.dns = "127.0.0.1:0";
        options.tls = false;
        options.check_canary = true;
        options.remember = 200'000;
        return options;
    }
    void start_sink(SinkOptions options) {
        auto sink = Sink::start(std::move(options));
        ASSERT_TRUE(sink) << sink.error().text;
        sink_ = std::move(*sink);
    }
    void write(const std::filesystem::path& path, std::string_view text) {
        std::ofstream(path, std::ios::binary) << text;
    }
    void start_engine(unsigned shards, const std::string& shaping = "", const std::string& more = "") {
        write(folder_ / "shaping.toml", shaping);
        write(folder_ / "postrider.toml",
              fmt::format("[server]\nhostname = \"client.test\"\nspool = \"spool\"\nlog = \"{}\"\n"
                          "shards = {}\nshutdown_timeout = \"20s\"\n[dns]\nservers = [\"{}\"]\n"
                          "[smtp]\nport = {}\nprohibited_hosts = []\n[retry]\nretry_after = [\"1s\"]\n"
                          "[shaping]\nfiles = [\"shaping.toml\"]\n{}",
                          log_, shards, sink_->dns_address(), sink_->smtp_port(), more));
        auto loaded = load_config((folder_ / "postrider.toml").string(), "client.test");
        for (const auto& problem : loaded.problems) ADD_FAILURE() << problem.to_string();
        auto engine = Engine::start(std::move(loaded.config));
        ASSERT_TRUE(engine) << engine.error().text;
        engine_ = std::move(*engine);
    }
    // Drains and ends the engine.
    void end_engine() {
        engine_->stop();
        EXPECT_TRUE(engine_->join());
        engine_.reset();
    }

    static std::string message(uint64_t number, const std::vector<std::string>& recipients, size_t body = 200) {
        std::string text = "MAIL FROM:<news@sender.test>\r\n";
        for (const auto& recipient : recipients) text += fmt::format("RCPT TO:<{}>\r\n", recipient);
        text += fmt::format("DATA\r\nMessage-ID: <{}@gen.test>\r\nFrom: <news@sender.test>\r\nX-Seq: {}\r\n", number, number);
        for (const auto& recipient : recipients) text += fmt::format("X-Canary: {}\r\n", canary(recipient));
        text += "\r\n";
        for (size_t left = body; left > 0; left -= std::min<size_t>(left, 70)) text += std::string(68, 'b') + "\r\n";
        return text + ".\r\n";
    }
    // Puts a batch into the spool.
    void submit(const std::string& name, std::string_view text) {
        for (const char* part : {"spool/tmp", "spool/new"}) std::filesystem::create_directories(folder_ / part);
        write(folder_ / "spool/tmp" / name, text);
        std::filesystem::rename(folder_ / "spool/tmp" / name, folder_ / "spool/new" / name);
    }
    // One recipient a message; `domain_of` names its domain.
    template <class F>
    void submit_many(size_t messages, F domain_of, size_t per_file = 1'000) {
        std::string text;
        for (size_t i = 1; i <= messages; ++i) {
            text += message(i, {fmt::format("r{}@{}", i, domain_of(i))});
            if (i % per_file != 0 && i != messages) continue;
            submit(fmt::format("batch-{}.bsmtp", i), text);
            text.clear();
        }
    }

    template <class F>
    bool wait_for(F condition, int seconds = 40) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
        while (!condition()) {
            if (std::chrono::steady_clock::now() > end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return true;
    }
    bool wait_finals(uint64_t count, int seconds = 40) {
        return wait_for([&] { return engine_->totals().finals() >= count; }, seconds);
    }

    Ledger read_log() {
        Ledger ledger;
        std::ifstream log(folder_ / "delivery.jsonl");
        for (std::string line; std::getline(log, line);) {
            const auto record = nlohmann::json::parse(line, nullptr, false);
            if (record.is_discarded()) {
                ADD_FAILURE() << "not JSON: " << line;
                continue;
            }
            const std::string type = record["type"], recipient = record["recipient"];
            if (type == "Delivery") ++ledger.delivered[recipient];
            if (type == "Bounce") ++ledger.bounced[recipient];
            if (type != "TransientFailure") continue;
            ++ledger.transient;
            ledger.ambiguous += record.value("possible_duplicate", false);
        }
        return ledger;
    }
    size_t files_left() {
        size_t count = 0;
        for (const char* part : {"spool/active", "spool/new", "spool/bad"})
            for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ / part))
                count += entry.is_regular_file();
        return count;
    }

    std::filesystem::path folder_;
    std::string log_ = "delivery.jsonl";
    std::unique_ptr<Sink> sink_;
    std::unique_ptr<Engine> engine_;
};

}  // namespace postrider::test
