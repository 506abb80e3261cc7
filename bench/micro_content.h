// Messages for the small benchmarks: a header and base64 lines of 76 octets, as newsletters have
// them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace postrider::bench {

// About `size` octets with this line end. `dot_every`: each so-manieth line begins with a dot; 0:
// none.
inline std::string make_message(size_t size, std::string_view line_end, size_t dot_every = 0) {
    std::string message = "From: Sender <news@sender.example>";
    message += line_end;
    for (const char* field : {"To: recipient@example.com", "Subject: The news of this week",
                              "Message-ID: <1.bench@sender.example>", ""}) {
        message += field;
        message += line_end;
    }
    for (size_t line = 1; message.size() + 76 < size; ++line) {
        const size_t begin = message.size();
        for (size_t i = 0; i < 76; ++i)
            message += static_cast<char>('A' + (line * 31 + i * 7) % 26);
        if (dot_every != 0 && line % dot_every == 0) message[begin] = '.';
        message += line_end;
    }
    return message;
}

}  // namespace postrider::bench
