// A folder of its own for each test, and files in it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config/config.h"

namespace postrider {

class ConfigFiles : public ::testing::Test {
  protected:
    ConfigFiles() {
        std::string name = (std::filesystem::temp_directory_path() / "postrider-config-XXXXXX");
        folder_ = mkdtemp(name.data());
    }
    ~ConfigFiles() override { std::filesystem::remove_all(folder_); }

    std::string write(const std::string& name, std::string_view text) {
        const auto path = (folder_ / name).string();
        std::ofstream(path, std::ios::binary) << text;
        return path;
    }

    LoadedConfig load(std::string_view text) {
        return load_config(write("postrider.toml", text), "host.example.com");
    }

    // The problems as printed, without the folder.
    std::vector<std::string> told(const std::vector<ConfigProblem>& problems) const {
        std::vector<std::string> out;
        for (const auto& each : problems) {
            auto line = each.to_string();
            const auto prefix = folder_.string() + '/';
            for (size_t at; (at = line.find(prefix)) != std::string::npos;) {
                line.erase(at, prefix.size());
            }
            out.push_back(line);
        }
        return out;
    }

    // The same, but for "not enforced yet", which depends on how far the engine is.
    std::vector<std::string> faults(const std::vector<ConfigProblem>& problems) const {
        auto lines = told(problems);
        std::erase_if(lines, [](const std::string& line) { return line.find("is not enforced yet") != std::string::npos; });
        return lines;
    }

    struct LoadedShaping {
        ShapingRules rules;
        std::vector<ConfigProblem> problems;
    };

    // Files in order: a.toml, b.toml, ...
    LoadedShaping shape(const std::vector<std::string_view>& files) {
        LoadedShaping out;
        std::string name = "a.toml";
        for (const auto text : files) {
            load_shaping_file(write(name, text), out.rules, out.problems);
            ++name[0];
        }
        return out;
    }

    std::filesystem::path folder_;
};

}  // namespace postrider
