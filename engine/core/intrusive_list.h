// Doubly linked list through a base of its elements: no allocation, O(1) unlink of an element by itself.
#pragma once

#include "engine/core/check.h"

namespace postrider {

// Derive from ListNode<Tag>; an element is in at most one list per tag. It unlinks itself when destroyed.
template <class Tag>
class ListNode {
  public:
    ListNode() = default;
    ListNode(const ListNode&) = delete;
    ListNode& operator=(const ListNode&) = delete;
    ~ListNode() { unlink(); }

    bool linked() const { return next_ != nullptr; }
    void unlink() {
        if (!next_) return;
        prev_->next_ = next_;
        next_->prev_ = prev_;
        next_ = prev_ = nullptr;
    }

  private:
    template <class T, class U>
    friend class IntrusiveList;
    ListNode* next_ = nullptr;
    ListNode* prev_ = nullptr;
};

template <class T, class Tag>
class IntrusiveList {
    using Node = ListNode<Tag>;

  public:
    IntrusiveList() { head_.next_ = head_.prev_ = &head_; }
    IntrusiveList(const IntrusiveList&) = delete;
    IntrusiveList& operator=(const IntrusiveList&) = delete;
    ~IntrusiveList() {
        while (!empty()) pop_front();
        head_.next_ = head_.prev_ = nullptr;
    }

    bool empty() const { return head_.next_ == &head_; }
    T& front() { return static_cast<T&>(*head_.next_); }
    T& back() { return static_cast<T&>(*head_.prev_); }

    void push_back(T& element) { insert_before(head_, element); }
    void push_front(T& element) { insert_before(*head_.next_, element); }
    T& pop_front() {
        T& element = front();
        static_cast<Node&>(element).unlink();
        return element;
    }

    // Moves every element of `other` to the end of this list, in O(1).
    void splice_back(IntrusiveList& other) {
        if (other.empty()) return;
        Node* first = other.head_.next_;
        Node* last = other.head_.prev_;
        other.head_.next_ = other.head_.prev_ = &other.head_;
        first->prev_ = head_.prev_;
        head_.prev_->next_ = first;
        last->next_ = &head_;
        head_.prev_ = last;
    }

    template <class F>
    void for_each(F&& visit) {
        for (Node* node = head_.next_; node != &head_;) {
            Node* next = node->next_;
            visit(static_cast<T&>(*node));
            node = next;
        }
    }

  private:
    static void insert_before(Node& at, T& element) {
        Node& node = element;
        POSTRIDER_CHECK(!node.linked(), "an element is in one list at a time");
        node.next_ = &at;
        node.prev_ = at.prev_;
        at.prev_->next_ = &node;
        at.prev_ = &node;
    }

    Node head_;
};

}  // namespace postrider
