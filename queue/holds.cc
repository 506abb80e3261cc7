#include "queue/holds.h"

#include <algorithm>

#include "queue/queue_name.h"

namespace postrider {

std::optional<HoldScope> hold_scope_of(std::string_view name) {
    const auto* found = std::ranges::find(kHoldScopes, name);
    if (found == std::end(kHoldScopes)) return std::nullopt;
    return static_cast<HoldScope>(found - std::begin(kHoldScopes));
}

HoldTable::HoldTable(std::vector<Hold> holds, const NameTable& queues, NameTable& labels)
    : holds_(std::move(holds)), queues_(queues) {
    for (const Hold& hold : holds_) {
        if (hold.suspended && hold.until_s) next_end_s_ = std::min(next_end_s_, hold.until_s);
        const Verdict verdict{hold.cancelled_to_s, hold.suspended, &hold};
        switch (hold.scope) {
            case HoldScope::domain: domains_[hold.name].join(verdict); break;
            case HoldScope::campaign: campaigns_[labels.intern(hold.name)].join(verdict); break;
            case HoldScope::tenant: tenants_[labels.intern(hold.name)].join(verdict); break;
            case HoldScope::site: sites_[hold.name].join(verdict); break;
            case HoldScope::provider: providers_[hold.name].join(verdict); break;
        }
        if (hold.cancelled_to_s != 0) cancels_.push_back({hold.cancelled_at_ns, hold.cancelled_to_s});
    }
    std::ranges::sort(cancels_, {}, &Cancel::at_ns);
    // A clock that was set back between two cancels must not make the earlier one the stronger.
    for (size_t i = 1; i < cancels_.size(); ++i) cancels_[i].to_s = std::max(cancels_[i].to_s, cancels_[i - 1].to_s);
}

HoldTable::Verdict HoldTable::of(DomainId domain, LabelId campaign, LabelId tenant) const {
    Verdict verdict;
    if (!domains_.empty()) verdict = find(domains_, domain_of(queues_.name(domain)));
    if (campaign && !campaigns_.empty()) verdict.join(find(campaigns_, campaign));
    if (tenant && !tenants_.empty()) verdict.join(find(tenants_, tenant));
    return verdict;
}

int64_t HoldTable::created_s(int64_t now_s, int64_t submitted_ns) const {
    if (cancels_.empty()) return now_s;
    const auto after = std::ranges::lower_bound(cancels_, submitted_ns, {}, &Cancel::at_ns);
    if (after != cancels_.end()) return std::min(now_s, after->to_s);
    return std::max(now_s, cancels_.back().to_s + 1);
}

}  // namespace postrider
