// A spool of the test's own, and a command run in this process with its three standard streams in
// files.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace postrider {

struct SpooledFile {
    std::string name;  // relative to new/
    std::string text;
};

class SpoolFixture : public testing::Test {
  protected:
    void SetUp() override {
        std::string folder =
            (std::filesystem::temp_directory_path() / "postrider-send-XXXXXX").string();
        ASSERT_NE(mkdtemp(folder.data()), nullptr);
        folder_ = folder;
        spool_ = path("spool");
        std::filesystem::create_directory(spool_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    void write_file(const std::string& name, std::string_view text) {
        std::ofstream(path(name), std::ios::binary) << text;
    }
    static std::string read_file(const std::filesystem::path& file) {
        std::ostringstream text;
        text << std::ifstream(file, std::ios::binary).rdbuf();
        return text.str();
    }
    void clear() { std::filesystem::remove_all(spool_ + "/new"); }

    std::vector<std::string> names_in(const std::string& folder) const {
        std::vector<std::string> names;
        const std::filesystem::path root = spool_ + "/" + folder;
        if (!std::filesystem::exists(root)) return names;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
            if (entry.is_regular_file())
                names.push_back(entry.path().lexically_relative(root).string());
        }
        std::ranges::sort(names);
        return names;
    }
    std::vector<SpooledFile> spooled() const {
        std::vector<SpooledFile> files;
        for (const std::string& name : names_in("new")) {
            files.push_back({name, read_file(spool_ + "/new/" + name)});
        }
        return files;
    }

    int run(int (*command)(int, char**), const char* name, std::vector<std::string> arguments,
            std::string_view input = {}) {
        arguments.insert(arguments.begin(), name);
        std::vector<char*> argv;
        for (std::string& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);
        write_file("stdin", input);
        const Redirect in(STDIN_FILENO, path("stdin"), O_RDONLY);
        int code = 0;
        {
            const Redirect out(STDOUT_FILENO, path("stdout"), O_WRONLY | O_CREAT | O_TRUNC);
            const Redirect err(STDERR_FILENO, path("stderr"), O_WRONLY | O_CREAT | O_TRUNC);
            code = command(static_cast<int>(arguments.size()), argv.data());
        }
        output_ = read_file(path("stdout"));
        error_ = read_file(path("stderr"));
        return code;
    }

    std::filesystem::path folder_;
    std::string spool_, output_, error_;

  private:
    class Redirect {
      public:
        Redirect(int stream, const std::string& file, int flags) : stream_(stream) {
            flush();
            saved_ = dup(stream);
            const int fd = open(file.c_str(), flags | O_CLOEXEC, 0600);
            dup2(fd, stream);
            close(fd);
        }
        ~Redirect() {
            flush();
            dup2(saved_, stream_);
            close(saved_);
        }
        Redirect(const Redirect&) = delete;
        Redirect& operator=(const Redirect&) = delete;

      private:
        static void flush() {
            std::fflush(stdout);
            std::cout.flush();
            std::fflush(stderr);
            std::cerr.flush();
        }
        int stream_, saved_;
    };
};

}  // namespace postrider
