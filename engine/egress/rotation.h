// The windows that a site's worker serves, and whose turn it is: deficit round robin over domains (Shreedhar and Varghese, 1995)
// by recipients. A turn is worth one recipient; a message to more leaves its window in debt, which sits as many turns out.
// Windows of urgent mail stand first, and have all turns while there are any.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "queue/ready_window.h"

namespace postrider {

class Rotation {
  public:
    struct Place {
        ReadyWindow* window = nullptr;
        int64_t expires_ms = 0;  // when the domain's binding must be renewed
        int64_t credit = 0;      // recipients; at most 1
    };

    bool empty() const { return places_.empty(); }
    size_t size() const { return places_.size(); }
    size_t urgent() const { return urgent_; }
    Place& operator[](size_t index) { return places_[index]; }
    const Place& operator[](size_t index) const { return places_[index]; }
    Place* find(const ReadyWindow& window) {
        const auto found = std::ranges::find(places_, &window, &Place::window);
        return found == places_.end() ? nullptr : &*found;
    }

    // Answers its index. Last in its class.
    size_t add(ReadyWindow& window, int64_t expires_ms) {
        const bool urgent = window.priority() == Priority::high;
        const size_t index = urgent ? urgent_ : places_.size();
        places_.insert(places_.begin() + static_cast<std::ptrdiff_t>(index), {&window, expires_ms});
        if (urgent) ++urgent_;
        return index;
    }
    void remove(size_t index) {
        places_.erase(places_.begin() + static_cast<std::ptrdiff_t>(index));
        if (index < urgent_) {
            --urgent_;
            if (urgent_turn_ > index) --urgent_turn_;
        } else if (turn_ > index - urgent_) {
            --turn_;
        }
    }

    // The index of whose turn it is; there is one, and it stays until served() or pass() or remove().
    size_t at_turn() {
        // Indices of urgent windows are their places; without urgent ones the others' are.
        const size_t count = urgent_ > 0 ? urgent_ : places_.size();
        size_t& turn = urgent_ > 0 ? urgent_turn_ : turn_;
        for (size_t looked_at = 0;; ++looked_at, ++turn) {
            if (turn >= count) turn = 0;
            if (looked_at == count) forgive(count);  // a round without one: the least in debt is next
            Place& place = places_[turn];
            if (place.credit > 0 || ++place.credit > 0) return turn;
        }
    }
    // A message to so many recipients went out of the window at turn.
    void served(size_t recipients) {
        const size_t index = urgent_ > 0 ? urgent_turn_ : turn_;
        places_[index].credit -= static_cast<int64_t>(recipients);
        if (places_[index].credit <= 0) pass();
    }
    void pass() { ++(urgent_ > 0 ? urgent_turn_ : turn_); }

  private:
    void forgive(size_t count) {
        int64_t least = INT64_MIN;
        for (size_t i = 0; i < count; ++i) least = std::max(least, places_[i].credit);
        for (size_t i = 0; i < count; ++i) places_[i].credit -= least;
    }

    std::vector<Place> places_;          // urgent_ of high priority first
    size_t urgent_ = 0;
    size_t turn_ = 0, urgent_turn_ = 0;  // whose it is, among the normal and among the urgent ones
};

}  // namespace postrider
